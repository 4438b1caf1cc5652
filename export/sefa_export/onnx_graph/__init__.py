"""Export to ONNX: the graph, its precision, and its weights in a file beside it."""
