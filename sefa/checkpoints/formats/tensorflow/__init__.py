"""Pickles of NVlabs' TensorFlow code."""
