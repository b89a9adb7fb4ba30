"""The Starlette application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from slimline.endpoint.core import Core
from slimline.endpoint.exchange import Answer, Exchange, Handler, Reply, json_reply
from slimline.endpoint.metrics import CONTENT_TYPE
from slimline.endpoint.predict import Predict
from slimline.endpoint.settings import Settings

PULSE_SECONDS = 1.0

log = logging.getLogger(__name__)


def create_app(settings: Settings) -> Starlette:
    """Return the application; its releases are loaded when it starts."""
    core = Core(settings)

    def route(path: str, method: str, answer: Answer) -> Route:
        return Route(path, Handler(answer, core.refused), methods=[method])

    async def livez(_: Exchange) -> Reply:
        return json_reply({"status": "alive"})

    async def readyz(_: Exchange) -> Reply:
        if core.ready and not core.draining:
            return json_reply({"status": "ready"})
        return json_reply({"status": "draining" if core.draining else "starting"}, 503)

    async def metrics(_: Exchange) -> Reply:
        core.pulse()
        return Reply(await asyncio.to_thread(core.metrics.render), content_type=CONTENT_TYPE)

    async def model(_: Exchange) -> Reply:
        return json_reply(core.cards())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await core.start()
        pulse = asyncio.create_task(_pulse(core))
        try:
            yield
        finally:
            pulse.cancel()
            with suppress(asyncio.CancelledError):
                await pulse
            await core.stop()

    app = Starlette(
        routes=[
            route("/predict", "POST", Predict(core)),
            route("/livez", "GET", livez),
            route("/readyz", "GET", readyz),
            route("/metrics", "GET", metrics),
            route("/model", "GET", model),
        ],
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )
    app.state.core = core
    return app


async def _pulse(core: Core) -> None:
    while True:
        core.pulse()
        await asyncio.sleep(PULSE_SECONDS)


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer unknown paths and methods in the same form as everything else."""
    assert isinstance(error, HTTPException)  # noqa: S101  (registered for it alone)
    request.app.state.core.refused(error.status_code)
    reply = json_reply({"error": error.detail}, error.status_code)
    return Response(reply.body, reply.status, dict(error.headers or {}), media_type="application/json")
