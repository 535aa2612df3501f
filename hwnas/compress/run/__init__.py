"""A run directory: its lock, its record, what it has cost so far."""
