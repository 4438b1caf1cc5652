"""onnxruntime: its import, providers and sessions, and their error messages."""
