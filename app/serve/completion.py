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
from specee.app.serve.request import CompletionRequest

# titles of the engine's errors
BAD_LOGIT_BIAS, BAD_SCHEMA = "bad logit_bias", "bad JSON schema"
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
    names = {BAD_LOGIT_BIAS: "logit_bias", BAD_SCHEMA: "tools" if request.tools.given else "response_format"}
    name = names.get(error.title)
    return error if name is None else ApiError(400, error.title, f"'{name}': {error.message}", name)


class Completion:
    """An answer on its way to a client, which may leave. Close it."""

    def __init__(self, feed: Feed, receive: Receive, reply: Reply) -> None:
        self._feed, self._reply = feed, reply
        self._events: AsyncIterator[Event] = aiter(feed)
        self._watch = asyncio.create_task(self._leave_with_client(receive))

    async def start(self) -> None:
        """Waits until the answer begins. Raises AppError, and ClientLeftError when the client has left."""
        while not isinstance(await anext(self._events), Started):
            pass

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
                async for chunk in self._completion.chunks(with_usage=self._with_usage):
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


async def _send_event(send: Send, data: str) -> None:
    await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})
