"""TODO runtime/tritonserver."""
