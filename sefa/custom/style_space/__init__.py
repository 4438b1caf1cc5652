"""The style space of a user's own generator: the code between its mapping network and the layers that read it."""
