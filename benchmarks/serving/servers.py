"""The servers that are compared, each started on a CPU of its own with the same ONNX file and one session thread."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import priority
from processes import tree

from slimline import manifest

HERE = Path(__file__).parent
SERVER_CPU, CLIENT_CPU = 0, 1
TRITON = Path(os.environ.get("TRITONSERVER_VENV", ".venv/triton")) / "bin" / "python"
START_TRITON = Path("serving/tritonserver/start.py")


@dataclass(frozen=True)
class Variant:
    """A server, and the request that it is sent.

    ``commands`` run one after the other, and the last is the server; they and ``environment`` have {release}, {port},
    {folder} and {here} filled in. ``body`` is a form of ``bodies``; ``grpc`` says that it goes to the next port.
    """

    name: str
    commands: Sequence[Sequence[str]]
    path: str
    body: str
    ready: str = "/readyz"
    environment: Mapping[str, str] = field(default_factory=dict)
    grpc: bool = False


def variants(release: Path) -> list[Variant]:
    """Return the servers that run ``release``. Triton stands among them where ``make test-triton`` has installed it."""
    python = sys.executable
    bento = [python, "-m", "bentoml", "serve", "--port", "{port}", "--host", "127.0.0.1", "--working-dir"]
    plain = [[*bento, "{here}", "bento_plain:Plain"]]
    ours = {"SLIMLINE_RELEASE": "{release}", "SLIMLINE_EVENT_STORE": ""}
    events = ours | {"SLIMLINE_EVENT_STORE": "sqlite:///{folder}/events.db"}
    packaged = [[*bento, "serving", "service:Slimline"]]
    serve = ["serve", "--port", "{port}"]
    alone = [[python, "-m", "slimline", *serve]]
    uvicorn = [python, "-m", "uvicorn", "--app-dir", "{here}", "--port", "{port}", "--log-level", "warning"]
    uvicorn += ["--no-access-log"]
    plainest = [
        "--loop",
        "asyncio",
        "--http",
        "h11",
    ]  # what `pip install uvicorn` runs on by itself
    fast = ["--loop", "uvloop", "--http", "httptools"]
    infer = f"/v2/models/{model_name(release)}/infer"
    found = [
        Variant("starlette", [[*uvicorn, *plainest, "starlette_app:app"]], "/predict", "inputs"),
        Variant("starlette, uvloop", [[*uvicorn, *fast, "starlette_app:app"]], "/predict", "inputs"),
        Variant("bentoml", plain, "/predict", "bento"),
        Variant("bentoml, batchable", plain, "/predict", "bento", environment={"BATCHABLE": "1"}),
        Variant("slimline in bentoml", packaged, "/predict", "inputs", environment=events),
        Variant("mounted in bentoml", [[*bento, "{here}", "bento_mounted:Mounted"]], "/predict", "inputs",
                environment=events),
        Variant("slimline", alone, "/predict", "inputs", environment=events),
        Variant("slimline, no events", alone, "/predict", "inputs", environment=ours),
        Variant("slimline, no events or metrics", [[python, "{here}/unmetered.py", *serve]], "/predict", "inputs",
                environment=ours),
        Variant("slimline, no batching", alone, "/predict", "inputs", environment=events | {"SLIMLINE_MAX_BATCH": "1"}),
        Variant("slimline v2", alone, infer, "v2", environment=events),
        Variant("slimline v2, binary", alone, infer, "v2-binary", environment=events),
    ]  # fmt: skip
    return [*found, *(_triton(infer) if TRITON.is_file() else [])]


def _triton(infer: str) -> list[Variant]:
    """Return Triton's python backend on the repository that ``slimline triton`` writes, batching as that chooses."""
    write = [sys.executable, "-m", "slimline", "triton", "{release}", "--out", "{folder}/models", "--backend", "python"]
    start = [str(TRITON), str(START_TRITON), "{folder}/models", "--port", "{port}", "--backends", "{folder}/backends"]
    start += ["--backend-config=python,shm-region-prefix-name=bench-{port}-"]
    ready = "/v2/health/ready"
    return [
        Variant("triton, json", [write, start], infer, "v2", ready),
        Variant("triton, binary", [write, start], infer, "v2-binary", ready),
        Variant("triton, grpc", [write, start], "/inference.GRPCInferenceService/ModelInfer", "grpc", ready, grpc=True),
    ]


def model_name(release: Path) -> str:
    """Return the name that v2 servers know the model by."""
    name: str = manifest.read_json(release / "card.json")["task"]["name"]
    return name


@dataclass(frozen=True)
class Server:
    """A running server: its addresses, process, seconds until it was ready, and where its events would lie."""

    http: str
    url: str
    pid: int
    ready_s: float
    events: Path

    def has_torch(self) -> bool:
        """Whether any of its processes has loaded torch."""
        return any("libtorch" in Path(f"/proc/{pid}/maps").read_text() for pid in tree(self.pid))


@contextmanager
def serving(variant: Variant, release: Path) -> Iterator[Server]:
    """Start a server on its CPU and yield it; stop it at the end. Exits with its log when it doesn't start."""
    port = free_ports()
    with tempfile.TemporaryDirectory() as folder:
        names = {"release": str(release.resolve()), "port": str(port), "folder": folder, "here": str(HERE)}
        commands = [[each.format_map(names) for each in command] for command in variant.commands]
        environment = {name: value.format_map(names) for name, value in variant.environment.items()}
        own = {"RELEASE": names["release"], "OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "True"}
        for command in commands[:-1]:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        log = Path(folder) / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["taskset", "-c", str(SERVER_CPU), *commands[-1]], env=os.environ | own | environment,
                stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        started = time.monotonic()
        priority.sessions([process.pid])
        try:
            http = f"http://127.0.0.1:{port}"
            while not _answers(http + variant.ready):
                if process.poll() is not None or time.monotonic() - started > 60:
                    sys.exit(f"{variant.name} doesn't start:\n{log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.02)
            ready = time.monotonic() - started
            priority.sessions(tree(process.pid))
            url = f"http://127.0.0.1:{port + variant.grpc}{variant.path}"
            yield Server(http, url, process.pid, ready, Path(folder) / "events.db")
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # and what it may have left
    process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def free_ports(count: int = 3) -> int:
    """Return the first of ``count`` TCP ports in a row that nothing listens on: Triton takes three."""
    while True:
        first = 20_000 + secrets.randbelow(12_000)  # below those that the system gives to connections
        with suppress(OSError):
            for port in range(first, first + count):
                with socket.socket() as held:
                    held.bind(("127.0.0.1", port))
            return first
