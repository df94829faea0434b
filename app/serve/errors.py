"""What a client is told when its request cannot be answered, in the form of the chat completions API."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import JSONResponse
from typing_extensions import TypedDict

from specee.app.engine.client import EngineLostError, NoEngineError
from specee.app.errors import INTERNAL, PROMPT_TOO_LONG, USAGE, AppError

RETRY_SECONDS = 2  # after which a refused client may ask again
CODES = {401: "invalid_api_key", 413: "body_too_large", 503: "unavailable"}


class ErrorDetails(TypedDict):
    message: str
    type: str
    param: str | None
    """The parameter that is wrong."""
    code: str | None


class ErrorObject(TypedDict):
    error: ErrorDetails


ERROR_OBJECT = TypeAdapter(ErrorObject)


class ApiError(AppError):
    """A request that is refused with this status; `param` is the parameter that is wrong."""

    def __init__(self, status: int, title: str, message: str, param: str | None = None) -> None:
        super().__init__(title, message, USAGE)
        self.status, self.param = status, param


def bad_request(message: str, param: str | None = None) -> ApiError:
    """What the client must change."""
    return ApiError(400, "bad request", message, param)


def not_supported(message: str, param: str) -> ApiError:
    """What cannot be had here."""
    return ApiError(400, "not supported", message, param)


def server_ends() -> ApiError:
    """What requests get that are still being answered then."""
    return ApiError(503, "the server ends", "ask again when it is back")


def for_client(error: AppError) -> AppError:
    """What a client is told: only what it can do, nothing of the server's files and workers. The log has the rest."""
    if isinstance(error, ApiError) or (error.exit_code == USAGE and not isinstance(error, NoEngineError)):
        return error
    is_of_device = error.of_device or (isinstance(error, EngineLostError) and error.goes_on)
    title = "a device failed" if is_of_device else error.title  # which may be a worker's address
    if isinstance(error, NoEngineError):
        told = ApiError(503, "no engine", "the model cannot be loaded, and the server's log says why; ask again later")
    elif isinstance(error, EngineLostError):
        told = ApiError(503, title, "the answer is lost; ask again")
    elif error.exit_code == PROMPT_TOO_LONG:
        what, _, _ = error.message.partition(";")  # what follows is for who can give another window
        return AppError(error.title, f"{what}; send fewer or shorter messages", PROMPT_TOO_LONG)
    else:
        told = ApiError(500, title, "the server's log has the details")
    logging.getLogger(__name__).error("%s", error.line)
    return told


def status_of(error: AppError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, ApiError):
        return error.status
    return 400 if error.exit_code in (USAGE, PROMPT_TOO_LONG) else 500


def error_object(error: AppError) -> ErrorObject:
    """The object that says it to a client."""
    error = for_client(error)
    status = status_of(error)
    code = "context_length_exceeded" if error.exit_code == PROMPT_TOO_LONG else CODES.get(status)
    kind = "invalid_request_error" if status < 500 else "server_error"
    param = error.param if isinstance(error, ApiError) else None
    return {"error": {"message": error.line, "type": kind, "param": param, "code": code}}


def error_bytes(error: AppError) -> bytes:
    """The same in JSON."""
    return ERROR_OBJECT.dump_json(error_object(error))


async def error_response(request: Request, error: Exception) -> JSONResponse:
    """The answer to a request that failed; what is no AppError is our own mistake."""
    if not isinstance(error, AppError):
        error = ApiError(500, INTERNAL, "the server's log has the details")
    error = for_client(error)
    status = status_of(error)
    headers: dict[int, Mapping[str, str]] = {
        401: {"WWW-Authenticate": "Bearer"},
        503: {"Retry-After": str(RETRY_SECONDS)},
    }
    return JSONResponse(error_object(error), status, headers.get(status))
