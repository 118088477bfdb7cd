"""Engines: packed rows and paged KV in, hidden states and logits out."""
