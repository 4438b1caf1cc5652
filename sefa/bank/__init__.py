"""The bank of directions: its file, editing, naming and comparison."""
