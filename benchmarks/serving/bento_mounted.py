"""The endpoint mounted in BentoML as its documentation says, all of BentoML's middleware before it."""

import bentoml

from slimline.endpoint.app import create_app
from slimline.endpoint.settings import from_environment

app = create_app(from_environment())


@bentoml.service(
    workers=1, traffic={"timeout": 300}, metrics={"enabled": False}, logging={"access": {"enabled": False}}
)
@bentoml.asgi_app(app, path="/")
class Mounted:
    """Answers as serving/service.py does."""
