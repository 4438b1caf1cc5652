"""Addresses to listen on, proxies in front, the lines of the log."""
