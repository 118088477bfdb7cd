"""Feed-forward nets: arrays by name in, arrays by name out, in ONNX Runtime, TensorRT or recorded torch."""
