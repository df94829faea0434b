"""The paths of the server, and what keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from specee.app.errors import AppError
from specee.app.options import ChatOptions
from specee.app.serve import status
from specee.app.serve.answers import Answers
from specee.app.serve.completion import Completions
from specee.app.serve.engine_check import EngineCheck
from specee.app.serve.errors import ApiError, error_response
from specee.app.serve.gate import Gate
from specee.app.serve.openapi import openapi
from specee.app.settings import shown

PATHS = "/v1/chat/completions, /v1/models, /health and /openapi.json"


def application(
    answers: Answers, options: ChatOptions, *, key: str | None, origins: Sequence[str], loopback: bool
) -> Starlette:
    """The server of an engine, which it closes at its end. `origins`: web pages that may use it; "*" stands for all."""
    completions = Completions(answers, options)
    document = openapi(with_key=key is not None)
    name = answers.info.name
    engine = EngineCheck(answers.client)

    async def health(request: Request) -> Response:
        await engine.check()
        return JSONResponse(status.Health(status="ok"))

    async def models(request: Request) -> Response:
        return JSONResponse(status.ModelList(object="list", data=[status.model(name)]))

    async def model(request: Request) -> Response:
        wanted = request.path_params["model"]
        if wanted != name:
            raise ApiError(404, "not found", f"there is no model {shown(wanted)}", "model")
        return JSONResponse(status.model(wanted))

    async def describe(request: Request) -> Response:
        return JSONResponse(document)

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(answers.client.close)

    cors = Middleware(CORSMiddleware, allow_origins=origins, allow_methods=("GET", "POST"), allow_headers=("*",))
    app = Starlette(
        routes=[
            Route("/health", health),
            Route("/openapi.json", describe),
            Route("/v1/models", models),
            Route("/v1/models/{model:path}", model),
            Route("/v1/chat/completions", completions.complete, methods=["POST"]),
        ],
        middleware=[*([cors] if origins else []), Middleware(Gate, key=key, loopback=loopback)],
        exception_handlers={
            HTTPException: _no_such_path,
            AppError: error_response,
            Exception: error_response,
        },
        lifespan=life,
    )
    app.router.redirect_slashes = False
    return app


async def _no_such_path(request: Request, error: Exception) -> Response:
    """Starlette's errors: no such path, or not this method."""
    assert isinstance(error, HTTPException)
    path = shown(request.scope["path"])
    if request.method == "OPTIONS" and request.scope["path"] == "*":  # of the whole server
        return Response(status_code=204, headers={"Allow": "GET, HEAD, POST, OPTIONS"})
    if error.status_code != 405:
        return await error_response(
            request, ApiError(error.status_code, "not found", f"there is no {path}, but {PATHS}")
        )
    allowed = f"{(error.headers or {}).get('Allow', '')}, OPTIONS"
    if request.method == "OPTIONS":
        return Response(status_code=204, headers={"Allow": allowed})
    response = await error_response(request, ApiError(405, "not allowed", f"{path} takes {allowed}"))
    response.headers["Allow"] = allowed
    return response
