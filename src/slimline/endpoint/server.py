"""The application alone: uvicorn with uvloop and httptools, and no log line a request."""

from __future__ import annotations

import logging

from slimline.endpoint.settings import Settings

KEEP_ALIVE_SECONDS = 75
FINISH_SECONDS = 30


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Raises the SlimlineError that a start fails with."""
    import uvicorn

    from slimline.endpoint.app import create_app
    from slimline.endpoint.connection import Connection

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").addFilter(_no_traceback)
    app = create_app(settings)
    config = uvicorn.Config(
        app, host=host, port=port, loop="slimline.endpoint.accepting:Loop", http=Connection, ws="none",
        access_log=False, log_config=None, server_header=False, proxy_headers=False, lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_SECONDS, timeout_graceful_shutdown=FINISH_SECONDS,
    )  # fmt: skip
    try:
        uvicorn.Server(config).run()
    except SystemExit:
        if app.state.core.failure is not None:
            raise app.state.core.failure from None
        raise


def last_line(record: logging.LogRecord) -> bool:
    """Let a failed start say what failed, without the stack: a filter for who can't say it himself."""
    message = record.getMessage()
    if message.startswith("Traceback"):
        record.msg, record.args = message.strip().splitlines()[-1], ()
    return True


def _no_traceback(record: logging.LogRecord) -> bool:
    """Leave out what uvicorn logs of a failed start: the error itself is said once, by who started it."""
    return not record.getMessage().startswith("Traceback")
