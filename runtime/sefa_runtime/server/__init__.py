"""The inference server behind `sefa serve`: needs the extra `serve` (fastapi, uvicorn, prometheus-client), never torch.

`settings`, `errors`, `batching`, `models`, `tensors`, `inference` and `metrics` know nothing of HTTP; `v2`, `images`,
`documents` and `middleware` are the routes, `app` joins them, `run` is the process.
"""
