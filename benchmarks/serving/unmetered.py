"""The endpoint without its metrics: what they cost shows by leaving them out, which no setting does."""

from slimline.endpoint.app import create_app
from slimline.endpoint.metrics import Series
from slimline.endpoint.settings import from_environment

Series.answered = lambda *_: None  # type: ignore[assignment]

app = create_app(from_environment())
