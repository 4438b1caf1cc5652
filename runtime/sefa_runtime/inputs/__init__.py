"""Prepare latents, codes and edits as a graph takes them."""
