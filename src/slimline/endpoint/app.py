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
from starlette.types import Receive, Scope, Send

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
MODELS, INFER = "/v2/models/", "/infer"


class Endpoint(Starlette):
    """Starlette, with a short way to the paths that predictions are asked on: its own costs them a tenth of their time.

    A ``Handler`` answers whatever happens, so it needs none of the middleware.
    """

    predict: Handler
    infer: Handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and not scope.get("root_path"):
            path: str = scope["path"]
            if path == "/predict":
                return await self.predict(scope, receive, send)
            model = path[len(MODELS) : -len(INFER)]
            if model and "/" not in model and path.startswith(MODELS) and path.endswith(INFER):
                scope["path_params"] = {"model": model}
                return await self.infer(scope, receive, send)
        await super().__call__(scope, receive, send)
        return None


def create_app(settings: Settings) -> Endpoint:
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

    table = _table(core, reloader)
    routes = [Route(path, handler, methods=[method]) for (method, path), handler in table.items()]
    app = Endpoint(routes=routes, exception_handlers={HTTPException: _http_error}, lifespan=lifespan)
    app.router.redirect_slashes = False  # to a host that the request itself names
    app.predict, app.infer = table["POST", "/predict"], table["POST", "/v2/models/{model}/infer"]
    app.state.core = core
    return app


def _table(core: Core, reloader: Reloader) -> dict[tuple[str, str], Handler]:
    probes, v2 = Probes(core), OpenInference(core)

    async def reload(exchange: Exchange) -> Reply:
        core.tokens.require(exchange, "admin")
        return json_reply(await reloader.look(again=True))

    model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    table: dict[tuple[str, str], Answer] = {
        ("POST", "/predict"): Predict(core),
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
    return {each: Handler(answer, core.refused) for each, answer in table.items()}


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
