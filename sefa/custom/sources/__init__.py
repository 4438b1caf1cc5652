"""Where a user's module and its weights come from."""
