"""From a checkpoint to TensorRT-LLM engines. Only ``fac_engine`` and ``compile`` need the library itself."""
