"""Fairlead: gang scheduling on exact devices, and books that balance, for shared GPU clusters."""
