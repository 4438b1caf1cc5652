"""Files written by genforce's code."""
