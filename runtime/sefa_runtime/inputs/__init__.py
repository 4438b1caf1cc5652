"""Latents, codes and edits, brought to what a graph takes."""
