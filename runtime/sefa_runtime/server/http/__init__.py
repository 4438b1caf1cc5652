"""The server over HTTP: the Open Inference Protocol v2, images, the page, and their description."""
