"""Programs of a checkout: demo, doctor, table of faults."""
