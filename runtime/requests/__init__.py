"""What a client may ask: parameters, messages, limits."""
