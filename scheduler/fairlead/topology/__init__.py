"""Machines and fabric as graphs: paths, islands, questions, tables and pictures."""
