"""A cluster in memory on virtual time: shipped, because users test with it too."""
