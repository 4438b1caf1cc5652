"""The same over HTTP: the Open Inference Protocol v2, images, the page, and what describes them."""
