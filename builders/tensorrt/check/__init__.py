"""Graphs exported by other exporters and compiled by a real builder, without a GPU."""
