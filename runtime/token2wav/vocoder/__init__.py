"""Mel spectrograms to sound: the net, the state of each stream."""
