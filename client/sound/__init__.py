"""Reads sound files in any state and arrays of any kind as mono samples in [-1, 1]."""
