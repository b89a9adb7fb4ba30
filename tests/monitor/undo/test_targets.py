"""What each target really does: weights in a file, a program, a service."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from slimline.deployment import Deployment
from slimline.errors import UndoError
from slimline.manifest import digest
from slimline.monitor.targets.command import Command
from slimline.monitor.targets.deployment import Deployment as Target
from slimline.monitor.targets.webhook import Webhook
from tests.monitor.undo.conftest import alarm


@pytest.fixture
def variants(two_releases: tuple[Path, Path], tmp_path: Path) -> Path:
    """A file of a stable variant and a canary."""
    path = tmp_path / "variants.json"
    stable, canary = (
        {"release": str(each), "weight": weight} for each, weight in zip(two_releases, (9, 1), strict=True)
    )
    path.write_text(json.dumps({"stable": stable, "canary": canary}))
    return path


def test_a_canary_loses_its_weight(variants: Path, two_releases: tuple[Path, Path]) -> None:
    target, told = Target(variants=str(variants)), alarm(digest(two_releases[1]), "canary")
    move = target.plan(told, [])
    assert move is not None
    assert (move.kind, move.to, target.done(move)) == ("shift", "stable", False)
    target.move(move, told)
    before = variants.read_text()
    assert {name: each["weight"] for name, each in json.loads(before).items()} == {"stable": 9, "canary": 0}
    assert target.done(move)
    assert target.plan(told, []) is None, "it has no traffic to lose"
    target.move(move, told)
    assert variants.read_text() == before


def test_a_variant_that_answers_alone_is_rolled_back(
    variants: Path, deployed: Deployment, two_releases: tuple[Path, Path]
) -> None:
    first, second = deployed.earlier()[0], str(deployed.revision())
    variants.write_text(json.dumps({"only": {"release": str(deployed.path)}}))
    target, told = Target(variants=str(variants)), alarm(second, "only")
    move = target.plan(told, [second])
    assert move is not None
    assert (move.kind, move.to) == ("rollback", first)
    target.move(move, told)
    assert (deployed.revision(), target.done(move), target.plan(told, [])) == (first, True, None)


def test_traffic_never_goes_to_a_variant_that_regressed(variants: Path, two_releases: tuple[Path, Path]) -> None:
    told = alarm(digest(two_releases[1]), "canary")
    with pytest.raises(UndoError, match="to go back to"):
        Target(variants=str(variants)).plan(told, [digest(two_releases[0])])


@pytest.mark.parametrize(
    ("text", "message"), [("[]", "expected"), ("{", "can't be read"), ("{}", "no variant 'canary'")]
)
def test_a_variants_file_that_cannot_be_used_is_named(variants: Path, text: str, message: str) -> None:
    variants.write_text(text)
    with pytest.raises(UndoError, match=f"variants.json: {message}"):
        Target(variants=str(variants)).plan(alarm("sha256:" + "0" * 64, "canary"), [])


def test_a_command_gets_the_alarm(tmp_path: Path) -> None:
    code = "import json, sys; d = json.load(sys.stdin); open(sys.argv[1], 'w').write(d['alarm']['id']); print('moved')"
    target = Command([sys.executable, "-c", code, str(tmp_path / "told")])
    told = alarm("sha256:" + "0" * 64)
    move = target.plan(told, [])
    assert move is not None
    assert target.move(move, told).endswith("ended well moved")
    assert (tmp_path / "told").read_text() == told.id


def test_a_command_may_say_what_is_no_text() -> None:
    code = "import sys; sys.stdout.buffer.write(b'moved \\xff')"
    target, told = Command([sys.executable, "-c", code]), alarm("sha256:" + "0" * 64)
    move = target.plan(told, [])
    assert move is not None
    assert target.move(move, told).endswith("ended well moved \ufffd")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([sys.executable, "-c", "import sys; sys.exit('no cluster')"], "ended with 1: no cluster"),
        (["/nowhere/deployer"], "/nowhere/deployer"),
        ([sys.executable, "-c", "import time; time.sleep(9)"], "timed out"),
    ],
)
def test_a_command_that_fails_says_why(argv: list[str], message: str) -> None:
    target, told = Command(argv, timeout=0.5), alarm("sha256:" + "0" * 64)
    move = target.plan(told, [])
    assert move is not None
    with pytest.raises(UndoError, match=message):
        target.move(move, told)


class Service:
    """A deployer that takes posts and answers with ``status``."""

    def __init__(self) -> None:
        self.status = 200
        self.seen: list[tuple[dict[str, str], Any]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.seen.append((dict(self.headers), body))
                self.send_response(service.status)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/undo"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_webhook_is_told_with_its_token(service: Service, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    target, told = Webhook(service.url, str(tmp_path / "token")), alarm("sha256:" + "0" * 64)
    move = target.plan(told, [])
    assert move is not None
    assert target.move(move, told).endswith("answered 200")
    headers, body = service.seen[0]
    assert headers["Authorization"] == "Bearer secret"
    assert headers["Idempotency-Key"] == body["alarm"]["id"] == told.id
    service.status = 503
    with pytest.raises(UndoError, match="503"):
        target.move(move, told)


def test_a_service_that_speaks_no_http_failed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"moved\r\n")

        threading.Thread(target=answer, daemon=True).start()
        target, told = Webhook(f"http://127.0.0.1:{listening.getsockname()[1]}/undo"), alarm("sha256:" + "0" * 64)
        move = target.plan(told, [])
        assert move is not None
        with pytest.raises(UndoError, match="BadStatusLine: moved"):
            target.move(move, told)
