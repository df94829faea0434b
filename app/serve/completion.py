"""/v1/chat/completions: one request and its answer, in one piece or as a stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from specee.app.engine.protocol import Done, Started
from specee.app.errors import AppError
from specee.app.options import ChatOptions
from specee.app.serve.answers import Answers, ClientLeftError, Event, Feed
from specee.app.serve.body import BodyReader
from specee.app.serve.errors import ApiError, error_object, server_ends
from specee.app.serve.reply import Reply
from specee.app.serve.request import SCHEMA, CompletionRequest

# titles of the engine's errors
BAD_LOGIT_BIAS, BAD_SCHEMA = "bad logit_bias", "bad JSON schema"
KEEP_ALIVE_SECONDS = 5.0
"""After which a stream says that the server is there: a prompt may take long, and what may be a call is held back."""
CLIENT_LEFT = 499  # nobody sees it


class Completions:
    """Answers requests; `options` holds what they do not say."""

    def __init__(self, answers: Answers, options: ChatOptions) -> None:
        self._answers, self._options = answers, options
        self._bodies = BodyReader()

    async def complete(self, request: Request) -> Response:
        """Raises AppError for what cannot be answered, as long as no answer has begun."""
        body = await self._bodies.read(request)
        info = self._answers.info
        wanted = await asyncio.to_thread(
            CompletionRequest.read,
            body,
            self._options,
            takes_tools=info.takes_tools,
            takes_calls=info.takes_calls,
            cannot_think=info.cannot_think,
        )
        reply = Reply(info.name, wanted.tools, logprobs=wanted.options.top_logprobs is not None)
        completion = Completion(self._answers.ask(wanted), request.receive, reply)
        try:
            if wanted.stream:
                await completion.start()
                return EventStream(completion, with_usage=wanted.stream_usage)
            response = JSONResponse(await completion.whole())
        except ClientLeftError:
            response = JSONResponse(None, CLIENT_LEFT)
        except AppError as error:
            completion.close()
            raise _with_name(error, wanted) from error
        except BaseException:
            completion.close()
            raise
        completion.close()
        return response


def _with_name(error: AppError, request: CompletionRequest) -> AppError:
    """An error of the engine that is about one parameter, with the parameter's name."""
    names = {BAD_LOGIT_BIAS: "logit_bias", BAD_SCHEMA: "tools" if request.tools.given else SCHEMA}
    name = names.get(error.title)
    return error if name is None else ApiError(400, error.title, f"'{name}': {error.message}", name)


class Completion:
    """An answer on its way to a client, which may leave. Close it."""

    def __init__(self, feed: Feed, receive: Receive, reply: Reply) -> None:
        self._feed, self._reply = feed, reply
        self._events: AsyncIterator[Event] = aiter(feed)
        self._beginning: asyncio.Future[Event] | None = None  # of a stream
        self._watch = asyncio.create_task(self._leave_with_client(receive))

    async def start(self) -> None:
        """Waits until the answer begins, or that takes long.

        Raises AppError, and ClientLeftError when the client has left.
        """
        self._beginning = asyncio.ensure_future(anext(self._events))  # Started
        begun, _ = await asyncio.wait({self._beginning}, timeout=KEEP_ALIVE_SECONDS)
        if begun:
            self._beginning.result()

    async def whole(self) -> Any:
        """The answer in one piece. Raises as `start` does."""
        async for event in self._events:
            if isinstance(event, Done):
                self._reply.end(event.stats)
                return self._reply.whole(event.stats)
            if not isinstance(event, Started):
                self._reply.add(event)
        raise ClientLeftError

    async def chunks(self, *, with_usage: bool) -> AsyncIterator[Any]:
        """The answer in pieces, after `start`. Raises as it does."""
        yield self._reply.begin()
        assert self._beginning is not None
        await self._beginning
        async for event in self._events:
            if isinstance(event, Done):
                for chunk in self._reply.end(event.stats):
                    yield chunk
                if with_usage:
                    yield self._reply.usage(event.stats)
            elif not isinstance(event, Started):
                piece = self._reply.add(event)
                if piece is not None:
                    yield piece

    def close(self) -> None:
        """The answer is complete, or nobody waits for it."""
        self._watch.cancel()
        self._feed.leave()

    async def _leave_with_client(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._feed.leave()


class EventStream(Response):
    """The chunks of an answer as server-sent events."""

    media_type = "text/event-stream"

    def __init__(self, completion: Completion, *, with_usage: bool) -> None:
        super().__init__(headers={"Cache-Control": "no-cache"})
        del self.headers["content-length"]
        self._completion, self._with_usage = completion, with_usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                async for chunk in _with_pauses(self._completion.chunks(with_usage=self._with_usage)):
                    if chunk is None:
                        await _send(send, ": the answer goes on")
                    else:
                        await _send_event(send, json.dumps(chunk))
            except ClientLeftError:
                return
            except AppError as error:
                await _send_event(send, json.dumps(error_object(error)))
            except asyncio.CancelledError:
                await _send_event(send, json.dumps(error_object(server_ends())))
            await _send_event(send, "[DONE]")
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._completion.close()


async def _with_pauses(chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The chunks, and None whenever there has been none for long."""
    following: asyncio.Future[Any] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(anext(chunks))
            done, _ = await asyncio.wait({following}, timeout=KEEP_ALIVE_SECONDS)
            if not done:
                yield None
                continue
            try:
                chunk = following.result()
            except StopAsyncIteration:
                return
            following = None
            yield chunk
    finally:
        if following is not None:
            following.cancel()


async def _send_event(send: Send, data: str) -> None:
    await _send(send, f"data: {data}")


async def _send(send: Send, part: str) -> None:
    await send({"type": "http.response.body", "body": f"{part}\n\n".encode(), "more_body": True})
