"""HTTP connections on which nothing is waited for without an end: a request's head, and a client that doesn't read.

uvicorn's protocol collects a head however long it gets and waits for its next byte for ever; it keeps a connection that
says nothing at all, and answers to who doesn't take them. Each holds memory and a socket where none of the endpoint's
own limits counts.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 2**16  # beside what the transport hands over at once, 256 KiB at most
HEAD_SECONDS = 10.0
READ_SECONDS = 30.0  # a client takes some of its answer within that
TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\ncontent-length: 43\r\n"
    b'connection: close\r\n\r\n{"error":"the head of the request is large"}'
)


class Connection(HttpToolsProtocol):
    """Answers a head that grows beyond HEAD_BYTES with 431, and closes where none is whole after HEAD_SECONDS.

    An answer that the client takes nothing of for READ_SECONDS is cut off.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._in_head = False
        self._begins = False  # the head began in the bytes being read, behind others maybe
        self._head = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEAD_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._whole()
        self._taken()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head = 0 if self._begins else self._head + len(data)
            self._begins = False
            if self._head > HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(TOO_LARGE)
                self.transport.close()
        if self._deadline is None and self._waits():
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def on_message_begin(self) -> None:
        self._in_head = self._begins = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._whole()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        self._unread = self.loop.call_later(READ_SECONDS, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._taken()
        super().resume_writing()

    def _taken(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _waits(self) -> bool:
        """Return whether the next thing to come is a head, and no other timer runs."""
        between = self.cycle is None or (self.cycle.response_complete and self.timeout_keep_alive_task is None)
        return self._in_head or between

    def _whole(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
