"""Engines that TensorRT-LLM compiled."""
