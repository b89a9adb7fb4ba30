"""One HTTP exchange as plain ASGI: read the body within limits, answer once, and let no stack trace out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any, NamedTuple

import orjson
from starlette.types import Receive, Scope, Send

from slimline.errors import SlimlineError, UnavailableError

JSON = b"application/json"
CLOSE = {b"connection": b"close"}  # the rest of a body is not read
CROWDED = {b"retry-after": b"1"} | CLOSE
AWAY = "the model's server is away or too slow, try again later"

log = logging.getLogger(__name__)


class RefusedError(SlimlineError):
    """A request that is answered with an HTTP error: one line, and no more."""

    def __init__(self, status: int, message: str, headers: Mapping[bytes, bytes] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


class ClientGoneError(Exception):
    """The client closed the connection before its request was whole."""


class Reply(NamedTuple):
    """What goes back to the client."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: Mapping[bytes, bytes] = {}


def json_reply(document: Any, status: int = 200, headers: Mapping[bytes, bytes] | None = None) -> Reply:
    """Return ``document`` as a JSON reply."""
    return Reply(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), status, JSON, headers or {})


class Room:
    """The bytes of bodies that may be in memory at once, over all requests."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


class Exchange:
    """A request being answered. ``headers`` holds the last value of each header, names in lower case.

    ``held`` counts the bytes of its body, which are taken from a Room: who admitted the request gives them back.
    """

    __slots__ = ("_late", "headers", "held", "receive", "scope", "started")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self.held = 0
        self._late = False
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.started = perf_counter()

    @property
    def path_params(self) -> dict[str, Any]:
        params: dict[str, Any] = self.scope["path_params"]
        return params

    async def body(self, limit: int, seconds: float, room: Room) -> bytes:
        """Return the whole body.

        Raises RefusedError 413 above ``limit`` bytes, 408 when it isn't whole after ``seconds``, 415 when it is
        compressed (it could unpack to any size), 503 when ``room`` is used up, and ClientGoneError.
        """
        if self.headers.get(b"content-encoding", b"identity") != b"identity":
            raise RefusedError(415, "a compressed body is not accepted: send it as it is", CLOSE)
        declared = self.headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit:
            raise RefusedError(413, f"the body is larger than {limit} bytes", CLOSE)
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101  (uvicorn answers each request in a task)
        deadline = loop.call_later(seconds, self._too_late, task)  # asyncio.timeout would cost twice as much
        try:
            return await self._body(limit, room)
        except asyncio.CancelledError:
            if not self._late or task.uncancel() > 0:
                raise
            raise RefusedError(408, f"the body wasn't whole after {seconds:g} s", CLOSE) from None
        finally:
            deadline.cancel()

    def _too_late(self, task: asyncio.Task[Any]) -> None:
        self._late = True
        task.cancel()

    async def _body(self, limit: int, room: Room) -> bytes:
        parts: list[bytes] = []
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            parts.append(message.get("body", b""))
            size = len(parts[-1])
            self.held += size
            room.left -= size
            if self.held > limit:  # a chunked body declares no length
                raise RefusedError(413, f"the body is larger than {limit} bytes", CLOSE)
            if room.left < 0:
                raise RefusedError(503, "too many large requests at once, try again later", CROWDED)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)


Answer = Callable[[Exchange], Awaitable[Reply]]


class Handler:
    """An ASGI application around ``answer``; what it raises becomes one line of JSON.

    ``refused(status)`` is told of every error.
    """

    def __init__(self, answer: Answer, refused: Callable[[int], None]) -> None:
        self._answer = answer
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = await self._answer(Exchange(scope, receive))
        except ClientGoneError:
            self._refused(499)  # nobody is left to answer; the number is nginx's
            return
        except RefusedError as error:
            reply = json_reply({"error": one_line(error)}, error.status, error.headers)
        except UnavailableError as error:  # its message names hosts, which clients needn't know
            log.warning("%s %r: %s", scope["method"], scope["path"], one_line(error))
            reply = json_reply({"error": AWAY}, 503, {b"retry-after": b"1"})
        except SlimlineError as error:
            reply = json_reply({"error": one_line(error)}, 400)
        except Exception:  # of our own mistakes a client sees no trace, and the log all; CancelledError goes on up
            log.exception("%s %r failed", scope["method"], scope["path"])  # a path may hold line breaks
            reply = json_reply({"error": "the server failed; its log says why"}, 500)
        if reply.status >= 400:
            self._refused(reply.status)
        await send_reply(reply, send)


async def send_reply(reply: Reply, send: Send) -> None:
    """Send the reply's head and body."""
    headers = [(b"content-type", reply.content_type), (b"content-length", b"%d" % len(reply.body))]
    if reply.headers:
        headers.extend(reply.headers.items())
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def one_line(error: Exception) -> str:
    """Return the message of ``error`` without line breaks."""
    return " ".join(str(error).split())
