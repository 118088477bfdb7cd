"""Torch modules around the engines: encoder, speech head projections."""
