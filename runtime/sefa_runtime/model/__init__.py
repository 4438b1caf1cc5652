"""What an exported file says of itself, and how it is read."""
