"""TODO runtime/requests."""
