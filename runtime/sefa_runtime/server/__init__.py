"""The inference server behind `sefa serve`: needs the extra `serve` (starlette, pydantic, uvicorn, ...), never torch.

A request's way, over HTTP and gRPC alike:

    http/application, grpc/server   what came, as an exchange: its client, id, token
    pipeline                        checks the token, answers, maps errors to statuses (`errors`), counts, logs
    http/..._endpoints, grpc/service   decode the request, encode the answer
    inference                       limits and inputs of a v2 request; the images of prepared inputs
    models, batching                whether a model can answer, its queue, its deadline, its runs

`app` joins endpoints and pipeline, `run` is the process; `network` is where it listens and which proxies it trusts,
`page` the page at `/`. A new endpoint: a function and a `Route` in `http/..._endpoints`, described in `http/openapi`.
What the page's sliders send: `page/api.js`.
"""
