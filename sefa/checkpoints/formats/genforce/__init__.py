"""Files of genforce's code."""
