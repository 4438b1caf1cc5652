"""onnxruntime: its import, providers, sessions, and what they say when they fail."""
