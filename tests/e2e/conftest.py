"""A real project laid out by ``slimline init`` on the digits task, its chain run once for each test file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
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


def lay_out(root: Path, *arguments: str) -> Project:
    """Make a git repository with one commit and run ``slimline init`` in it."""
    root.mkdir(parents=True)
    project = Project(root)
    project.run("git", "init", "-q")
    project.run("git", "commit", "-q", "--allow-empty", "-m", "start")
    project.run("slimline", "init", *arguments)
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
