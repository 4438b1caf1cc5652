"""Compare methods on one generator."""
