"""The Starlette application: which path is answered by what, and its life from start to drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from slimline.endpoint.core import Core
from slimline.endpoint.drain import on_sigterm
from slimline.endpoint.exchange import JSON, Answer, Exchange, Handler, Reply, json_reply
from slimline.endpoint.feedback import Feedback
from slimline.endpoint.open_inference import OpenInference
from slimline.endpoint.predict import Predict
from slimline.endpoint.probes import Probes
from slimline.endpoint.reload import Reloader
from slimline.endpoint.settings import Settings
from slimline.errors import SlimlineError

PULSE_SECONDS = 1.0


def create_app(settings: Settings) -> Starlette:
    """Return the application; its releases are loaded when it starts. Raises ParamsError where there is none."""
    core = Core(settings)
    for each in core.described:
        each.directory()
    reloader = Reloader(core)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            await core.start()
        except SlimlineError as error:
            core.failure = error
            raise
        on_sigterm(core.drain, settings.drain_seconds)
        tasks = [asyncio.create_task(_pulse(core))]
        if settings.reload_seconds:
            tasks.append(asyncio.create_task(reloader.watch(settings.reload_seconds)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await core.stop()

    app = Starlette(routes=_routes(core, reloader), exception_handlers={HTTPException: _http_error}, lifespan=lifespan)
    app.state.core = core
    return app


def _routes(core: Core, reloader: Reloader) -> list[Route]:
    probes, v2 = Probes(core), OpenInference(core)

    async def reload(exchange: Exchange) -> Reply:
        core.tokens.require(exchange, "admin")
        return json_reply(await reloader.look(again=True))

    model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    table: dict[tuple[str, str], Answer] = {
        ("POST", "/predict"): Predict(core),  # the busiest first: routes are tried in order
        ("POST", f"{model}/infer"): v2.infer,
        ("POST", f"{version}/infer"): v2.infer,
        ("POST", "/feedback"): Feedback(core),
        ("GET", "/livez"): probes.livez,
        ("GET", "/readyz"): probes.readyz,
        ("GET", "/metrics"): probes.metrics,
        ("GET", "/model"): probes.model,
        ("GET", "/openapi.json"): probes.openapi,
        ("GET", "/v2"): v2.server,
        ("GET", "/v2/health/live"): v2.live,
        ("GET", "/v2/health/ready"): v2.ready,
        ("GET", model): v2.model,
        ("GET", f"{model}/ready"): v2.model_ready,
        ("GET", version): v2.model,
        ("GET", f"{version}/ready"): v2.model_ready,
        ("POST", "/admin/reload"): reload,
    }
    return [Route(path, Handler(answer, core.refused), methods=[method]) for (method, path), answer in table.items()]


async def _pulse(core: Core) -> None:
    while True:
        core.pulse()
        await asyncio.sleep(PULSE_SECONDS)


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer unknown paths and methods in the same form as everything else."""
    assert isinstance(error, HTTPException)  # noqa: S101  (registered for it alone)
    request.app.state.core.refused(error.status_code)
    reply = json_reply({"error": error.detail}, error.status_code)
    return Response(reply.body, reply.status, dict(error.headers or {}), media_type=JSON.decode())
