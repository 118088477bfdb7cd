"""Between Triton and the runtime: tensors in and out, requests, the answer of one stream."""
