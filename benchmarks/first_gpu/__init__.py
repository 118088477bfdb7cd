"""The first run on a machine with a GPU: what to run, in which order, for how long at most."""
