"""Tokens: who may do what, and nothing about them in any message."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from slimline.endpoint.auth import Tokens
from slimline.endpoint.settings import Settings
from slimline.errors import ParamsError
from tests.endpoint.conftest import Serve

PREDICT, FEEDBACK, ADMIN = "predict-token-000001", "feedback-token-00001", "admin-token-00000001"
TOKENS = f"predict {PREDICT}; feedback {FEEDBACK}; admin,predict {ADMIN}"


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_each_scope_opens_its_own_doors(serve: Serve, rows: NDArray[np.float32], tmp_path: Path) -> None:
    client = serve(tokens=TOKENS, event_store=f"sqlite:///{tmp_path}/events.db")
    document = {"inputs": {"image": rows.tolist()}}
    label = {"id": "a", "label": "3"}

    def statuses(headers: dict[str, str]) -> list[int]:
        return [
            client.post("/predict", json=document, headers=headers).status_code,
            client.post("/v2/models/digits/infer", json={}, headers=headers).status_code,
            client.post("/feedback", json=label, headers=headers).status_code,
            client.post("/admin/reload", headers=headers).status_code,
        ]

    assert statuses({}) == [401] * 4
    assert statuses(bearer("wrong-token-00000000")) == [401] * 4
    assert statuses({"authorization": f"Basic {PREDICT}"}) == [401] * 4
    assert statuses(bearer(PREDICT)) == [200, 400, 403, 403]
    assert statuses(bearer(FEEDBACK)) == [403, 403, 200, 403]
    assert statuses(bearer(ADMIN)) == [200, 400, 403, 200]
    refused = client.post("/predict", json=document)
    assert refused.headers["www-authenticate"] == "Bearer"
    assert client.get("/readyz").status_code == client.get("/metrics").status_code == 200


def test_without_tokens_administration_is_closed(serve: Serve) -> None:
    client = serve()
    answer = client.post("/admin/reload")
    assert (answer.status_code, answer.json()["error"][:25]) == (403, "administration needs a to")


def test_tokens_come_from_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# ours\npredict {PREDICT}  # the shop\n\nfeedback {FEEDBACK}\n")
    tokens = Tokens("", str(file))
    assert len(tokens._scopes) == 2
    assert PREDICT not in str(vars(tokens))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("predict short", "token 1: a token is one ASCII word of at least 16"),
        (f"predict {PREDICT};write {ADMIN}", "token 2: 1 of its scopes are unknown"),
        (ADMIN, "1 of its scopes are unknown.*expected SCOPES TOKEN"),
        (f"predict {PREDICT} more", "one ASCII word"),
    ],
)
def test_a_mistake_names_the_place_and_not_the_token(text: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message) as caught:
        Tokens(text)
    for token in (PREDICT, ADMIN):
        assert token not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"SLIMLINE_TOKENS_FILE: .*nope: can't be read"):
        Tokens("", str(tmp_path / "nope"))


def test_nothing_logs_a_token(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    settings = Settings(tokens=TOKENS)
    client = serve(tokens=TOKENS)
    client.post("/predict", json={}, headers=bearer(PREDICT))
    client.post("/predict", json={}, headers=bearer("wrong-token-00000000"))
    logged = caplog.text + repr(settings)
    assert not any(token in logged for token in (PREDICT, FEEDBACK, ADMIN, "wrong-token"))
