"""A graceful end: on SIGTERM say "not ready", let the load balancer look away, finish, then stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)


def on_sigterm(begin: Callable[[], None], seconds: float) -> None:
    """Call ``begin`` at the first SIGTERM, and the server's own handler ``seconds`` later.

    uvicorn closes its listening socket as soon as it hears the signal, while a load balancer still sends requests
    there until its next probe fails: that is what the seconds are for.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # a server inside a test
    servers = signal.getsignal(signal.SIGTERM)
    loop = asyncio.get_running_loop()

    def stop(number: int, frame: FrameType | None) -> None:
        if callable(servers):
            servers(number, frame)
        else:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)

    def heard(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, stop)  # a second signal doesn't wait
        begin()
        if seconds > 0:
            log.info("SIGTERM: draining for %g s", seconds)
            loop.call_soon_threadsafe(loop.call_later, seconds, stop, number, frame)
        else:
            stop(number, frame)

    signal.signal(signal.SIGTERM, heard)
