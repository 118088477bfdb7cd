"""Parts of ``scripts/bench_gpu.py``."""
