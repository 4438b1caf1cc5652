"""Numpy's arrays as checkpoints' pickles have them."""

from sefa_runtime.pickles.arrays import StoredArray, is_shape

__all__ = ["StoredArray", "is_shape"]
