"""The endpoint as a BentoML service: BentoML packages and runs it, the mounted ASGI application answers.

BentoML 1.4 starts a timer for each request and never cancels it, opens a tracing span and labels its metrics with raw
paths, which grow with every scan. So requests don't pass through BentoML's middleware: its own pages are served by
its application, everything else by ours, which brings limits, deadlines and metrics of its own.
"""

import logging
import sys
from pathlib import Path

import bentoml
from _bentoml_sdk import Service
from bentoml._internal.server.http.traffic import TimeoutMiddleware
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from uvicorn.config import HTTP_PROTOCOLS, LOOP_FACTORIES

from slimline.endpoint.app import create_app
from slimline.endpoint.server import last_line
from slimline.endpoint.settings import from_environment
from slimline.errors import SlimlineError

HTTP_PROTOCOLS["auto"] = "slimline.endpoint.connection:Connection"  # BentoML lets no service choose them
LOOP_FACTORIES["auto"] = "slimline.endpoint.accepting:auto"
PAGES = {"/schema.json", "/docs.json"}
BESIDE = Path(__file__).parents[1] / "release"  # where a Bento holds it, and 'make repro' writes it

try:
    settings = from_environment(defaults={"SLIMLINE_RELEASE": str(BESIDE)})
    app = create_app(settings)
except SlimlineError as mistake:
    sys.exit(f"error: {mistake}")
logging.getLogger("uvicorn.error").addFilter(last_line)  # a worker's start that fails


class Direct(Service):
    """A BentoML service whose mounted application is reached directly."""

    def to_asgi(self, is_main=True):
        pages = super().to_asgi(is_main)
        pages.user_middleware = [
            each for each in pages.user_middleware if each.cls not in {TimeoutMiddleware, OpenTelemetryMiddleware}
        ]

        async def direct(scope, receive, send):
            ours = scope["type"] == "http" and scope["path"] not in PAGES
            await (app if ours else pages)(scope, receive, send)  # BentoML's lifespan runs the mounted one's too

        return direct


@bentoml.service(
    name="slimline",
    service_class=Direct,
    workers=settings.workers,
    metrics={"enabled": False},  # ours are at /metrics
    logging={"access": {"enabled": False}},
)
@bentoml.asgi_app(app, path="/")
class Slimline:
    """Answers from a Slimline release; docs/serving.md says how."""
