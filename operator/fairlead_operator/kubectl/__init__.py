"""`kubectl fairlead`: the plugin for kubectl."""
