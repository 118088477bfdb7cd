"""What is wrong on this machine, and how to mend it: `python -m client doctor`."""
