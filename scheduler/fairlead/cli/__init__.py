"""`fairlead`: verbs, tables, and the client of the HTTP API."""
