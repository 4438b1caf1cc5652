"""Formats of rosinality's repositories, and of those that grew out of them."""
