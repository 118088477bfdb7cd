"""Compute kernels, one per file, each with its shapes; the plain torch twins are what ``cpu`` runs."""
