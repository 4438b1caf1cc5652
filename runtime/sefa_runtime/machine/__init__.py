"""Describe this machine, and how much of it this process may use."""
