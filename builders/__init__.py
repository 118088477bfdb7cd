"""``python -m builders``: from checkpoints to a folder that the server can be pointed at."""
