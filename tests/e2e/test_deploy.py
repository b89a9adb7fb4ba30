"""Deployments under faults, by the real commands: a full disk, a killed deployer; the old release stays current."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from slimline import archive, manifest
from slimline.deployment import Deployment

from .conftest import environment


def slimline(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["slimline", *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)


@pytest.fixture
def packed(two_releases: tuple[Path, Path], tmp_path: Path) -> list[str]:
    """Two releases as files."""
    made = [str(tmp_path / f"{each.name}.tar.gz") for each in two_releases]
    for release, path in zip(two_releases, made, strict=True):
        archive.pack(release, path)
    return made


@pytest.mark.parametrize("free", [0, 4096, 20_000, 60_000], ids=lambda free: f"{free} bytes free")
def test_a_full_disk_leaves_the_old_release_current(packed: list[str], small_disk: Path, free: int) -> None:
    deployment = Deployment(small_disk / "deployed")
    assert slimline("deploy", packed[0], "--to", deployment.path).returncode == 0
    old = deployment.revision()
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - free))
    failed = slimline("deploy", packed[1], "--to", deployment.path)
    assert failed.returncode == 2, failed.stdout
    assert failed.stderr.count("\n") == 1
    assert "the disk is full; nothing was changed" in failed.stderr
    assert (deployment.revision(), deployment.releases()) == (old, [old])
    assert sorted(each.name for each in deployment.path.iterdir()) == [".lock", "current", "history.jsonl", "releases"]
    assert [each.name for each in (deployment.path / "releases").iterdir()] == [str(old).removeprefix("sha256:")]
    ballast.unlink()
    assert slimline("deploy", packed[1], "--to", deployment.path).returncode == 0
    assert deployment.previous() == old


def test_a_disk_that_is_full_when_the_pointer_moves_leaves_the_old_one(packed: list[str], small_disk: Path) -> None:
    deployment = Deployment(small_disk / "deployed")
    for path in packed:
        deployment.install(path)
    one, two = (manifest.digest(deployment.directory(each)) for each in deployment.releases())
    deployment.activate(one)
    history = deployment.path / "history.jsonl"
    history.write_text(history.read_text() + " " * (4096 - history.stat().st_size - 1) + "\n")  # its page is full
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    failed = slimline("deploy", "--revision", two, "--to", deployment.path)
    assert "the disk is full" in failed.stderr, failed.stdout
    assert (deployment.revision(), deployment.previous()) == (one, None)
    (small_disk / "ballast").unlink()
    assert slimline("deploy", "--revision", two, "--to", deployment.path).returncode == 0
    assert deployment.previous() == one


def test_a_full_disk_leaves_no_half_packed_or_unpacked_release(packed: list[str], small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 20_000))
    for arguments in (("unpack", packed[0], small_disk / "release"), ("unpack", packed[0], small_disk / "r" / "s")):
        failed = slimline(*arguments)
        assert failed.returncode == 2
        assert "the disk is full" in failed.stderr
    slimline("unpack", packed[0], small_disk.parent / "release")
    failed = slimline("pack", small_disk.parent / "release", small_disk / "r.tar")
    assert failed.returncode == 2
    assert "r.tar: the disk is full" in failed.stderr
    assert {each.name for each in small_disk.rglob("*")} == {"ballast", "r"}


def test_kill_9_at_any_time_leaves_a_whole_current_release(packed: list[str], tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "deployed")
    assert slimline("deploy", packed[0], "--to", deployment.path).returncode == 0
    seen = set()
    for step in range(24):
        command = ["slimline", "deploy", packed[(step + 1) % 2], "--to", str(deployment.path)]
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        time.sleep(0.05 + 0.04 * step)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        current = deployment.current()
        assert current is not None
        seen.add(manifest.verify(current))
        assert os.readlink(deployment.path / "current") == f"releases/{current.name}"  # noqa: PTH115
        for each in deployment.releases():
            assert manifest.verify(deployment.directory(each)) == each
    assert len(seen) == 2, "the kills came so early that none deployed, or so late that all did the same"
    assert slimline("deploy", packed[0], "--to", deployment.path).returncode == 0
    left = [each.name for each in deployment.path.rglob(".*") if each.name != ".lock"]
    assert left == []
