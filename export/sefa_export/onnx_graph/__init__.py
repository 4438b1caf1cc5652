"""Export to ONNX: the graph, its precision, and weights stored in a file beside it."""
