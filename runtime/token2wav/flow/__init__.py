"""Speech tokens to mel spectrograms: the net, its exported steps, the state of each stream."""
