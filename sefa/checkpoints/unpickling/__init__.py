"""Checkpoints' containers and the objects in them, read without running anything."""
