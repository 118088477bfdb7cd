"""The one release of TensorRT-LLM that builder, runtime and image are written for. Imports nothing."""

TENSORRT_LLM = "1.2.1"  # the last stable one that compiles engines
