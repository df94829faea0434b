"""The API in the words of OpenAPI, for clients and for tests."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter

from specee.app.serve.errors import ErrorObject
from specee.app.serve.reply import ChatCompletion
from specee.app.serve.schema import ChatCompletionRequest
from specee.app.serve.status import Health, Model, ModelList

REFUSALS = {
    400: "a parameter is wrong or not supported, or the prompt is too long",
    401: "the API key is missing or wrong",
    403: "called by a name that is not this machine's",
    404: "there is no such model",
    408: "the body came too slowly",
    413: "the body is too large",
    415: "the body is not JSON",
    500: "the engine failed",
    503: "busy, or the engine is lost: try again",
}
JSON = "application/json"


def openapi(*, with_key: bool) -> dict[str, Any]:
    """The document. `with_key`: requests need an API key."""
    kinds = (ChatCompletionRequest, ChatCompletion, Health, Model, ModelList, ErrorObject)
    adapters = [(kind.__name__, "validation", TypeAdapter(kind)) for kind in kinds]
    of_kind, definitions = TypeAdapter.json_schemas(adapters, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    schemas = {name: schema for (name, _), schema in of_kind.items()}

    def operation(name: str, kind: type, refusals: tuple[int, ...], **more: Any) -> dict[str, Any]:
        answers = {"200": {"description": "OK", "content": {JSON: {"schema": schemas[kind.__name__]}}}}
        for status in (401, 403, *refusals):
            answers[str(status)] = {
                "description": REFUSALS[status],
                "content": {JSON: {"schema": schemas[ErrorObject.__name__]}},
            }
        return {"operationId": name, "responses": answers, **more}

    complete = operation(
        "complete",
        ChatCompletion,
        (400, 408, 413, 415, 500, 503),
        requestBody={"required": True, "content": {JSON: {"schema": schemas[ChatCompletionRequest.__name__]}}},
    )
    complete["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"description": "chunks, then [DONE]"}}
    model_id = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "specee-chat", "version": version("specee-chat")},
        "paths": {
            "/health": {"get": operation("health", Health, (503,))},
            "/v1/models": {"get": operation("models", ModelList, ())},
            "/v1/models/{model}": {"get": operation("model", Model, (404,), parameters=[model_id])},
            "/v1/chat/completions": {"post": complete},
        },
        "components": {"schemas": definitions.get("$defs", {})},
    }
    if with_key:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    return document
