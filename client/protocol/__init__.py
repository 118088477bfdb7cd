"""What client and server share: tensors, error form, headers, bounds. Imports no other folder of the project."""
