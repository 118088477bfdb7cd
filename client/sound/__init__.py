"""Sound as people have it: files in any state, arrays of any kind, as mono samples in [-1, 1]."""
