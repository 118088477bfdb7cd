"""Reading a released Fun-Audio-Chat directory: configuration, expected tensors, weights."""
