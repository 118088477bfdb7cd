"""TODO runtime/engines/trtllm."""
