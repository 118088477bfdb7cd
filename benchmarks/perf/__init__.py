"""Measuring a running server: perf_analyzer, our own load generator, reports. `python -m benchmarks.perf --help`."""
