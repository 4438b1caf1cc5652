"""Pickles written by NVlabs' TensorFlow code."""
