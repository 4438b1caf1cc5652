"""Listening addresses, reverse proxies, and limits on the head of an HTTP request."""
