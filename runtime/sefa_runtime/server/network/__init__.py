"""Addresses to listen on, reverse proxies, and limits on the head of an HTTP request."""
