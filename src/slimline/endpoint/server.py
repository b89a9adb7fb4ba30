"""The application alone: uvicorn with uvloop and httptools, and no log line a request."""

from __future__ import annotations

import logging

from slimline.endpoint.settings import Settings


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. A failed start ends the process with the reason in one line."""
    import uvicorn

    from slimline.endpoint.app import create_app

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    config = uvicorn.Config(
        create_app(settings), host=host, port=port, loop="uvloop", http="httptools", ws="none", access_log=False,
        log_config=None, server_header=False, lifespan="on", timeout_graceful_shutdown=30,
    )  # fmt: skip
    server = uvicorn.Server(config)
    server.run()
    if not server.started:
        raise SystemExit(2)
