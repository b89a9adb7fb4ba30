"""The endpoint mounted in BentoML as its documentation says: every request passes BentoML's own middleware."""

import bentoml
from serving.service import app


@bentoml.service(name="mounted", metrics={"enabled": False}, logging={"access": {"enabled": False}})
@bentoml.asgi_app(app, path="/")
class Mounted:
    """Answers from a Slimline release."""
