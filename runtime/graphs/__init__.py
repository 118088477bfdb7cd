"""TODO runtime/graphs."""
