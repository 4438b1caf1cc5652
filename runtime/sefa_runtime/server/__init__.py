"""The inference server behind `sefa serve`: needs the extra `serve` (starlette, pydantic, uvicorn, ...), never torch.

The path of a request, over HTTP and gRPC alike:

    http/application, grpc/server      turn the request into an exchange: client, id, token
    pipeline                           checks the token, answers, maps errors to statuses (`errors`), counts, logs
    http/..._endpoints, grpc/service   decode the request, encode the answer
    inference                          checks the limits and inputs of a v2 request, generates images
    models, batching                   each model's state, queue, deadline and runs

`app` joins endpoints and pipeline, `run` is the process; `network` has the listening addresses and trusted proxies,
`page` the page at `/`. To add an endpoint, write a function and a `Route` in `http/..._endpoints`, and describe it in
`http/openapi`. What the page's sliders send is in `page/api.js`.
"""
