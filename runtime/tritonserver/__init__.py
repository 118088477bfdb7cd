"""All that touches Triton's Python backend."""
