"""Pickles of NVlabs' PyTorch code."""
