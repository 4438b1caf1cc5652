"""Pickles written by NVlabs' PyTorch code."""
