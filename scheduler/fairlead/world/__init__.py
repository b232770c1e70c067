"""State, the only mutable thing, and its read-only picture for one cycle."""
