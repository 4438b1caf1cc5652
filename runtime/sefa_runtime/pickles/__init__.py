"""A safe pickle reader, for code files and checkpoints: it runs nothing in them and needs only NumPy."""
