"""TODO scripts."""
