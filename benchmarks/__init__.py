"""Programs that measure, and their stored results."""
