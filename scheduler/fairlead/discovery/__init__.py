"""Readers of what is known of machines and fabrics, each from bytes to facts, and their join."""
