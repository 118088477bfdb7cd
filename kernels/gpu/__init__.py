"""Triton kernels. Imported only where they are used: a machine without Triton runs the twins in ``kernels``."""
