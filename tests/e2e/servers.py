"""Server processes of their own: ``slimline serve`` and the BentoML service, as people start them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from tests.endpoint.conftest import until
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SERVE = [str(BIN / "slimline"), "serve"]
BENTO = [sys.executable, "-m", "bentoml", "serve", "serving.service:Slimline", "--host", "127.0.0.1"]
KINDS = pytest.mark.parametrize("command", [SERVE, BENTO], ids=["alone", "bentoml"])


def workers_of(pid: int) -> list[psutil.Process]:
    """Return BentoML's worker processes."""
    found = []
    for each in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "_bentoml_impl" in " ".join(each.cmdline()):
                found.append(each)
    return found


class Process:
    """A server process of its own, with its log and the processes it started."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, cwd: Path = ROOT) -> None:
        self.port = free_ports()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)], cwd=cwd, env=environment, stdout=out, stderr=out
            )
        until(self._is_ready, 60)

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return httpx.get(f"{self.url}/readyz", timeout=1).status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def worker(self) -> psutil.Process:
        """The process that answers."""
        children = workers_of(self.process.pid)
        return children[0] if children else psutil.Process(self.process.pid)

    def metrics(self) -> str:
        return httpx.get(f"{self.url}/metrics").text

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
