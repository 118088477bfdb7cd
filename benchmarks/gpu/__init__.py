"""Parts of ``benchmarks/gpu/__main__.py``."""
