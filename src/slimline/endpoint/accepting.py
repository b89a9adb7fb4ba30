"""An event loop that takes new connections as fast as it answers requests.

libuv takes one connection a turn of the loop, and a turn answers every request that has come. Under load a turn is
long, so who connects anew waits for as many turns as others stand before it, while open connections go on: a moment's
stall, in which clients open more of them, then lasts for seconds. Here a turn takes as many connections more as
there are requests in hand; an idle worker takes one, so workers that share a socket share who comes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvloop

MOST = 64  # connections in a turn


class Loop(uvloop.Loop):
    """uvloop's loop, whose TCP servers take connections as above; protocols are uvicorn's."""

    async def create_server(self, protocol_factory: Any, *given: Any, **named: Any) -> Any:
        more = _More(self, protocol_factory, named.get("ssl"))
        server: Any = await super().create_server(more, *given, **named)
        more.listening = server.sockets[0].fileno() if len(server.sockets) == 1 else None
        return server


class _More:
    """Makes the protocol of a connection that the loop took, and takes those that wait behind it."""

    def __init__(self, loop: Loop, make: Callable[[], Any], ssl: Any) -> None:
        self._loop, self._make, self._ssl = loop, make, ssl
        self._opening: set[asyncio.Task[Any]] = set()
        self.listening: int | None = None

    def __call__(self) -> Any:
        protocol = self._make()
        if self.listening is not None:
            self._take(self.listening, min(MOST, len(protocol.server_state.tasks)))
        return protocol

    def _take(self, listening_on: int, count: int) -> None:
        """Take up to ``count`` connections that wait; it ends early when none waits any more."""
        if not count:
            return
        with socket.fromfd(listening_on, socket.AF_INET, socket.SOCK_STREAM) as listening, suppress(OSError):
            listening.setblocking(False)  # noqa: FBT003
            for _ in range(count):
                taken, _ = listening.accept()
                taken.setblocking(False)  # noqa: FBT003
                opening = self._loop.create_task(self._loop.connect_accepted_socket(self._make, taken, ssl=self._ssl))
                self._opening.add(opening)
                opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[Any]) -> None:
        self._opening.discard(opening)
        if not opening.cancelled():
            opening.exception()  # who has left again is no error


def auto(use_subprocess: bool = False) -> type[Loop]:
    """Return the loop, as uvicorn asks for it by name."""
    del use_subprocess
    return Loop
