"""TODO runtime/scheduling."""
