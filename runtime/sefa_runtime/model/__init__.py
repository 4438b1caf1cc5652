"""The description inside an exported file, and how it is read."""
