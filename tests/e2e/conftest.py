"""A real project laid out by ``slimline init`` on the digits task, its chain run once for each test file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from slimline.task import Split
from tests.e2e.servers import BIN, ROOT, Process

STAGES = ("teacher", "distill", "prune", "quantize", "factorize")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@dataclass(frozen=True)
class Project:
    """A folder with a laid-out project, and how to run things in it."""

    root: Path

    def run(
        self, *command: str, ok: bool = True, offline: bool = False, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the project; ``offline`` gives it a network namespace without any interface."""
        isolated = ["unshare", "--net", "--"] if offline else []
        done = subprocess.run(
            [*isolated, *command], cwd=self.root, env=environment() | env, text=True, capture_output=True, timeout=600
        )
        if ok:
            assert done.returncode == 0, f"{command}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def repro(self, *arguments: str, **env: str) -> list[str]:
        """Run ``dvc repro report release`` and return the stages that ran, the fingerprint aside."""
        out = self.run("dvc", "repro", *arguments, "report", "release", **env).stdout
        ran = [line.split("'")[1] for line in out.splitlines() if line.startswith("Running stage")]
        return [name for name in ran if not name.endswith(":fingerprint")]

    def digest(self, folder: str) -> str:
        """Return the bytes of a sealed folder's manifest, which hold every file's digest."""
        return (self.root / folder / "manifest.json").read_text()

    def json(self, path: str) -> dict[str, object]:
        """Read a JSON file of the project."""
        document: dict[str, object] = json.loads((self.root / path).read_text())
        return document

    def copy(self, target: Path) -> Project:
        """Copy the whole folder, DVC's cache included."""
        shutil.copytree(self.root, target, symlinks=True)
        return Project(target)

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace text that must be there."""
        text = (self.root / path).read_text()
        assert old in text, f"{path} has no {old!r}"
        (self.root / path).write_text(text.replace(old, new))


def environment() -> dict[str, str]:
    """Return an environment in which this interpreter's commands come first and nothing phones home."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    quiet = {"DVC_NO_ANALYTICS": "1", "GIT_TERMINAL_PROMPT": "0", "NO_COLOR": "1", "COLUMNS": "200"}
    author = {f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    threads = {"OMP_NUM_THREADS": "1"}  # two files of tests run beside each other
    return os.environ | quiet | author | threads | {"PATH": path}


def initialized(root: Path, *arguments: str) -> Project:
    """Make ``root``, which may hold data already, a git repository with one commit and run ``slimline init`` in it."""
    root.mkdir(parents=True, exist_ok=True)
    project = Project(root)
    project.run("git", "init", "-q")
    project.run("git", "commit", "-q", "--allow-empty", "-m", "start")
    project.run("slimline", "init", *arguments, HF_HUB_OFFLINE="1")
    return project


def lay_out(root: Path, *arguments: str) -> Project:
    """Return a repository with the digits task, fewer epochs of it, committed."""
    project = initialized(root, *arguments)
    project.edit("params.yaml", "epochs: 15", "epochs: 6")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "project")
    return project


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose chain ran to the end without a network, committed. Copy it before changing it."""
    project = lay_out(tmp_path_factory.mktemp("chain") / "project")
    project.run("slimline", "check", offline=True)
    project.run("dvc", "repro", "report", "release", offline=True)
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "chain")
    return project


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 4 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", mount], capture_output=True)
    if done.returncode:
        pytest.fail(f"a tmpfs can't be mounted: {done.stderr.decode()}")
    yield mount
    subprocess.run(["umount", "-l", mount], check=True)


@pytest.fixture(scope="module")
def rows(splits: dict[str, Split]) -> NDArray[np.float32]:
    array: NDArray[np.float32] = splits["validation"].inputs["image"][:8]
    return array


@pytest.fixture(scope="module")
def document(rows: NDArray[np.float32]) -> dict[str, Any]:
    return {"inputs": {"image": rows[:1].tolist()}}


@pytest.fixture
def run(two_releases: tuple[Path, Path], tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start ``command`` on the first release and return it when it is ready; keywords are SLIMLINE_… settings."""
    processes = []

    def start(command: list[str], **settings: str) -> Process:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SLIMLINE_")}
        environment |= {
            "SLIMLINE_RELEASE": str(two_releases[0]), "SLIMLINE_EVENT_STORE": f"sqlite:///{tmp_path}/events.db",
            "BENTOML_HOME": str(tmp_path / "bentoml"), "BENTOML_DO_NOT_TRACK": "True", "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        environment |= {f"SLIMLINE_{name.upper()}": value for name, value in settings.items()}
        processes.append(Process(command, environment, tmp_path / f"log-{len(processes)}"))
        return processes[-1]

    yield start
    for each in processes:
        each.stop()
