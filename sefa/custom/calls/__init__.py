"""How a user's module is called, and what becomes of the random numbers that it draws."""
