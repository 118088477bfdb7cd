"""Does an engine compute what the torch engine computes? Five cases, one table."""
