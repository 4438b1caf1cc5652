"""Listening addresses, reverse proxies, and limits on the head of an HTTP request."""

# The extension of an ASGI scope under which our own server has its side of the connection (`bounded_http.BoundedHttp`).
CONNECTION = "sefa.connection"
