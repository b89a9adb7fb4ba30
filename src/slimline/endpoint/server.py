"""The application alone: uvicorn with uvloop and httptools, and no log line a request."""

from __future__ import annotations

import errno
import logging
import socket

from slimline.deployment import short
from slimline.endpoint.core import Core
from slimline.endpoint.settings import Settings
from slimline.errors import ParamsError

KEEP_ALIVE_SECONDS = 75
FINISH_SECONDS = 30
ROUTES = "POST /predict, /feedback; GET /model, /metrics, /readyz, /openapi.json; /v2 for Open Inference clients"

log = logging.getLogger(__name__)


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Raises the SlimlineError that a start fails with.

    What is served, and where, is logged once it is.
    """
    import uvicorn

    from slimline.endpoint.app import create_app
    from slimline.endpoint.connection import Connection

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_no_traceback)
    app = create_app(settings)
    check_free(host, port)
    config = uvicorn.Config(
        app, host=host, port=port, loop="slimline.endpoint.accepting:Loop", http=Connection, ws="none",
        access_log=False, log_config=None, server_header=False, proxy_headers=False, lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_SECONDS, timeout_graceful_shutdown=FINISH_SECONDS,
    )  # fmt: skip

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            log.info(
                "serving %s at %s", served(app.state.core), _url(host, self.servers[0].sockets[0].getsockname()[1])
            )
            log.info("%s", ROUTES)

    try:
        Server(config).run()
    except SystemExit:
        if app.state.core.failure is not None:
            raise app.state.core.failure from None
        raise


def served(core: Core) -> str:
    """Return what answers: each variant's release, its task and revision."""
    several = len(core.variants.all) > 1
    return ", ".join(
        f"{each.name + ': ' if several else ''}{each.described.release} ({each.live.task}, "
        f"revision {short(each.live.revision)})"
        for each in core.variants.all
    )


def check_free(host: str, port: int) -> None:
    """Raise ParamsError where nothing can listen on an address, before a release is loaded for it.

    Of a name's addresses one is enough: ``localhost`` has one of IPv6 where the machine has none.
    """
    where = f"--host {host} --port {port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ParamsError(f"{where}: {error.strerror or error}") from None
    failed: list[OSError] = []
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ParamsError(f"--port {port}: another process listens there; give another, or 0 for any") from None
            failed.append(error)
    if len(failed) == len(found):
        raise ParamsError(f"{where}: {failed[0].strerror or failed[0]}")


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def last_line(record: logging.LogRecord) -> bool:
    """Let a failed start say what failed, without the stack: a filter for who can't say it himself."""
    message = record.getMessage()
    if message.startswith("Traceback"):
        record.msg, record.args = message.strip().splitlines()[-1], ()
    return True


def _no_traceback(record: logging.LogRecord) -> bool:
    """Leave out what uvicorn logs of a failed start: the error itself is said once, by who started it."""
    return not record.getMessage().startswith("Traceback")
