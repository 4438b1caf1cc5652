"""The server over gRPC: the Open Inference Protocol v2, and health checks."""
