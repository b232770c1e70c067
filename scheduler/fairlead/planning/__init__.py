"""The decision, and a second opinion on it."""
