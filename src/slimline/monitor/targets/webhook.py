"""A service that does it: ``{name: webhook, url: "http://deployer:8080/undo", token_file: /run/secrets/deployer}``."""

from __future__ import annotations

import http.client
import json
import urllib.request
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from slimline.errors import UndoError
from slimline.monitor.alarm import Alarm
from slimline.monitor.target import Move


@dataclass(frozen=True)
class Webhook:
    """POST ``{"alarm", "move"}`` as JSON to ``url``, with the bearer token in ``token_file``; 2xx within ``timeout`` s.

    The header ``Idempotency-Key`` is the alarm's id, so that the other side can tell a repeated call.
    """

    url: Annotated[str, Field(pattern="^https?://")]
    token_file: str | None = None
    timeout: Annotated[float, Field(gt=0)] = 10.0

    name: ClassVar[str] = "webhook"

    def plan(self, alarm: Alarm, avoid: Collection[str]) -> Move | None:
        del avoid
        return Move("ask", f"tell {self.url}", alarm.standing.revision, alarm.standing.variant)

    def move(self, move: Move, alarm: Alarm) -> str:
        body = json.dumps({"alarm": alarm.as_dict(), "move": move.as_dict()}).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": alarm.id}
        try:
            if self.token_file is not None:
                token = Path(self.token_file).read_text(encoding="utf-8").strip()
                headers["Authorization"] = f"Bearer {token}"
            request = urllib.request.Request(self.url, body, headers)  # noqa: S310  (its pattern allows http and https)
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:  # noqa: S310
                return f"{self.url} answered {answer.status}"
        except (OSError, ValueError, http.client.HTTPException) as error:
            said = " ".join(str(error).split())
            raise UndoError(f"monitor.undo.target: {self.url}: {type(error).__name__}: {said}") from error

    def done(self, move: Move) -> bool | None:
        del move
        return None
