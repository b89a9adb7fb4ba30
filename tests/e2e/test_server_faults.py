"""Servers are killed, releases break, clients stall, clocks jump: what clients saw, and that nothing told is lost."""

from __future__ import annotations

import ctypes
import mmap
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest

from slimline.deployment import Deployment
from slimline.events import EventStore
from slimline.manifest import digest
from tests.e2e.servers import BENTO, BIN, KINDS, SERVE, Process, workers_of
from tests.e2e.witness import Witness
from tests.endpoint.conftest import until

Run = Callable[..., Process]
HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n"


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/events.db"


def test_a_worker_killed_under_load(run: Run, document: dict[str, Any], store: str) -> None:
    """Of two: its clients' connections break, the other goes on, and a third takes its place."""
    server = run(BENTO, workers="2")
    until(lambda: len(workers_of(server.process.pid)) == 2)
    with Witness(server.url, document, clients=6) as witness:
        until(lambda: len(witness.acknowledged) > 20)
        killed = time.monotonic()
        victim = workers_of(server.process.pid)[0]
        victim.kill()
        until(lambda: len([each for each in workers_of(server.process.pid) if each != victim]) == 2, 60)
        acknowledged = len(witness.acknowledged)
        until(lambda: len(witness.acknowledged) > acknowledged + 20, 60)
    assert witness.predicted() | witness.labelled() <= {200, 0}
    broken = witness.statuses["/predict", 0] + witness.statuses["/feedback", 0]
    assert broken <= 7, "what was under way at the killed worker: a request a client, of six and the one that labels"
    server.stop()
    for name in witness.lost(store):  # its queue: at most a fifth of a second
        assert killed - 0.5 < witness.answered[name] < killed + 0.5


def test_a_server_killed_under_load_and_started_again(run: Run, document: dict[str, Any], store: str) -> None:
    server = run(SERVE)
    with Witness(server.url, document) as witness:
        until(lambda: len(witness.acknowledged) > 20)
        killed = time.monotonic()
        server.process.kill()
        until(lambda: witness.statuses["/predict", 0] > 3)
    assert witness.predicted() == {200, 0}
    for name in witness.lost(store):
        assert killed - 0.5 < witness.answered[name] < killed + 0.5
    again = run(SERVE)
    name, label = next(iter(witness.acknowledged.items()))
    assert httpx.post(f"{again.url}/feedback", json={"id": name, "label": label}).json()["outcome"] == "duplicate"


@KINDS
def test_releases_change_break_and_are_taken_back_under_load(
    run: Run, command: list[str], document: dict[str, Any], two_releases: tuple[Path, Path], tmp_path: Path, store: str
) -> None:
    deployment = Deployment(tmp_path / "deployment")
    first, second = (digest(each) for each in two_releases)

    def deploy(*arguments: str | Path) -> None:
        subprocess.run([BIN / "slimline", "deploy", *arguments, "--to", deployment.path], check=True)

    deploy(two_releases[0])
    server = run(command, release=str(deployment.path), reload_seconds="0.1")
    with Witness(server.url, document) as witness:
        for release, revision in ((two_releases[1], second), (two_releases[0], first)):
            deploy(release)
            until(lambda revision=revision: witness.revisions[-1:] == [revision], 60)  # type: ignore[misc]
        running = deployment.directory(first)
        for path in running.rglob("*.onnx"):  # what runs is corrupted where it lies
            path.write_bytes(b"gone")
        shutil.rmtree(running / "chain" / "teacher")
        asked = len(witness.answered)
        until(lambda: len(witness.answered) > asked + 30)
        model = deployment.directory(second) / "chain" / "distill" / "model.onnx"
        whole = model.read_bytes()
        model.write_bytes(whole[:-1] + b"?")
        assert (
            subprocess.run([BIN / "slimline", "deploy", "--revision", second, "--to", deployment.path]).returncode == 2
        )
        (deployment.path / "current").unlink()  # somebody's own script doesn't check
        (deployment.path / "current").symlink_to(f"releases/{second.removeprefix('sha256:')}")
        until(lambda: "serves on" in server.log.read_text())
        asked = len(witness.answered)
        until(lambda: len(witness.answered) > asked + 30)
        assert set(witness.revisions[-30:]) == {first}
    assert witness.predicted() | witness.labelled() == {200}
    assert set(witness.revisions) == {first, second}
    (said,) = [line for line in server.log.read_text().splitlines() if "serves on" in line]
    assert "model.onnx: wrong digest" in said
    server.stop()
    assert witness.lost(store) == []


@KINDS
def test_half_a_body_half_a_head_and_silence(
    run: Run, command: list[str], document: dict[str, Any], store: str
) -> None:
    server = run(command, body_seconds="1")
    with ExitStack() as held:
        bodies, heads = (
            [held.enter_context(socket.create_connection(("127.0.0.1", server.port), 15)) for _ in range(30)]
            for _ in range(2)
        )
        started = time.monotonic()
        for client in bodies:
            client.sendall(HEAD + b'{"inputs":')
        for client in heads:
            client.sendall(HEAD[:20])
        with Witness(server.url, document) as witness:
            for client in bodies:
                answer = until_closed(client)
                assert answer.startswith(b"HTTP/1.1 408 ")
                assert answer.endswith(b'{"error":"the body wasn\'t whole after 1 s"}')
            assert time.monotonic() - started < 6
            assert [until_closed(client) for client in heads] == [b""] * 30
    assert 8 < time.monotonic() - started < 15
    assert witness.predicted() | witness.labelled() == {200}
    server.stop()
    assert witness.lost(store) == []


def until_closed(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(4096):
        parts.append(part)
    return b"".join(parts)


@KINDS
def test_an_endless_head_takes_no_memory(run: Run, command: list[str]) -> None:
    server = run(command)
    before = server.worker.memory_info().rss
    sent = 0
    with socket.create_connection(("127.0.0.1", server.port)) as client, suppress(OSError):
        client.sendall(b"GET /livez HTTP/1.1\r\nx: ")
        while sent < 200e6:
            client.sendall(b"a" * 2**20)
            sent += 2**20
    assert sent < 16e6
    assert server.worker.memory_info().rss - before < 8e6
    assert httpx.get(f"{server.url}/readyz").status_code == 200


# The clock: real time shifted by what stands in a shared file, for one process alone.
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static volatile long long *shift;

__attribute__((constructor)) static void open_shift(void) {
    int file = open(getenv("CLOCK_SHIFT"), O_RDONLY);
    if (file >= 0) shift = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    if (result == 0 && clock == CLOCK_REALTIME && shift) time->tv_sec += *shift;
    return result;
}
"""


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set the clock of the processes started from here on by so many seconds; they run on."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    library, shift = tmp_path / "clock.so", tmp_path / "shift"
    (tmp_path / "clock.c").write_text(CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", tmp_path / "clock.c", "-o", library, "-ldl"], check=True)
    shift.write_bytes(bytes(ctypes.sizeof(ctypes.c_longlong)))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("CLOCK_SHIFT", str(shift))

    def move(seconds: int) -> None:
        with shift.open("r+b") as file, mmap.mmap(file.fileno(), 8) as memory:
            memory[:8] = struct.pack("q", seconds)

    return move


@pytest.mark.parametrize("days", [-30, 400], ids=["back", "ahead"])
def test_a_clock_that_jumps(
    run: Run, document: dict[str, Any], store: str, clock: Callable[[int], None], days: int
) -> None:
    """Labels written after the jump hold over those before it, and retention deletes nothing that is new."""
    server = run(SERVE, retention_days="7")
    with Witness(server.url, document) as witness:
        until(lambda: len(witness.acknowledged) > 10)
        early = next(iter(witness.acknowledged))
        clock(days * 86_400)
        asked, acknowledged = len(witness.answered), len(witness.acknowledged)
        until(lambda: len(witness.answered) > asked + 100 and len(witness.acknowledged) > acknowledged + 10)
        corrected = httpx.post(f"{server.url}/feedback", json={"id": early, "label": "9"}).json()
    assert witness.predicted() | witness.labelled() == {200}
    server.stop()
    first = witness.acknowledged.pop(early)
    assert witness.lost(store) == []
    with EventStore.open(store) as events:
        history = [each.label for each in events.history(early)]
        assert history == ([first, "9"] if corrected["outcome"] == "corrected" else [first])
        times = sorted(each.time for each in events.predictions())
        assert abs(times[-1] - times[0] - abs(days) * 86_400) < 3600, "the clock did jump"


TIMEOUT = 600  # seconds that BentoML waits for an answer: all requests fall within it, on a slow machine too
WARM_UP = 3000


class Asked(NamedTuple):
    """What ``times`` requests did to a worker."""

    megabytes: float  # by which it grew
    stall: float  # the longest: seconds of its own processor time, no others', between two answers
    seconds: float  # that they took


def asked(server: Process, document: dict[str, Any], times: int) -> Asked:
    """Send ``times`` requests over one connection, after a few that warm the server up.

    Eight are sent ahead (HTTP pipelining): the server always has the next one at hand, and answers one after the other.
    """
    worker: psutil.Process = server.worker
    body = httpx.Request("POST", server.url, json=document).content
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    request = head % len(body) + body

    def spent() -> float:
        return sum(worker.cpu_times()[:2])

    def ask(client: socket.socket, times: int) -> float:
        client.sendall(request * 8)
        answered, sent, rest = 0, 8, b""
        longest, before = 0.0, spent()
        while answered < times:
            rest += client.recv(2**18)
            now = spent()
            longest, before = max(longest, now - before), now
            count = rest.count(b"HTTP/1.1 200 OK\r\n")
            assert rest.count(b"HTTP/1.1 ") == count, rest[:300]
            rest = rest[rest.rfind(b"HTTP/1.1 ") + 9 :] if count else rest
            answered += count
            more = min(count, times - sent)
            client.sendall(request * more)
            sent += more
        return longest

    with socket.create_connection(("127.0.0.1", server.port), 30) as client:
        ask(client, WARM_UP)
        memory, started = worker.memory_info().rss, time.monotonic()
        longest = ask(client, times)
        seconds = time.monotonic() - started
    return Asked((worker.memory_info().rss - memory) / 1e6, longest, seconds)


def test_bentomls_timers_are_gone_after_100_000_requests(
    run: Run, document: dict[str, Any], store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BentoML keeps a timer, a span and what they hold until its timeout after each request: the same application
    mounted as its documentation says grows, and stalls while full collections look at all of it.
    """
    monkeypatch.setenv("BENTOML_CONFIG_OPTIONS", f"services.traffic.timeout={TIMEOUT}")
    mounted = [each if each != "serving.service:Slimline" else "tests.e2e.mounted:Mounted" for each in BENTO]
    control = run(mounted, event_store="", body_seconds="60")
    as_documented = asked(control, document, 12_000)
    control.stop()
    assert as_documented.megabytes > 10, "BentoML has mended it: serving/service.py can do without its detour"
    server = run(BENTO, body_seconds="60")
    with Witness(server.url, document, clients=1) as witness:
        found = asked(server, document, 100_000)
    assert found.seconds < TIMEOUT
    assert found.megabytes < 10
    assert found.stall < as_documented.stall
    assert witness.predicted() | witness.labelled() == {200}
    server.stop()
    assert witness.lost(store) == []
    with EventStore.open(store) as events:
        assert events.counts()["predictions"] == WARM_UP + 100_000 + len(witness.answered)
