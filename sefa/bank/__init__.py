"""The direction bank: its file, editing, naming and comparison."""
