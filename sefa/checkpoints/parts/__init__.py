"""Make a family's layers from a file's tensors: what several formats share."""
