"""s3:// by the real commands, as the init container of serving/k8s runs them: s3fs, and moto as the store."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from slimline import manifest
from slimline.deployment import Deployment
from tests.e2e.conftest import environment
from tests.ports import free_ports

pytest.importorskip("s3fs", reason="make test-e2e installs it")
server = pytest.importorskip("moto.server", reason="make test-e2e installs it")
URL = "s3://models/slimline/release.tar.gz"


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """The address of a store with the empty bucket ``models``."""
    port = free_ports()
    running = server.ThreadedMotoServer("127.0.0.1", port)
    running.start()
    httpx.put(f"http://127.0.0.1:{port}/models").raise_for_status()
    yield f"http://127.0.0.1:{port}"
    running.stop()


def slimline(store: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    given = {
        "AWS_ENDPOINT_URL": store, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1",
    }  # fmt: skip
    command = ["slimline", *map(str, arguments)]
    return subprocess.run(command, env=environment() | given, capture_output=True, text=True, timeout=120)


def test_a_release_is_packed_to_s3_and_deployed_from_it(
    store: str, two_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    deployment = Deployment(tmp_path / "deployed")
    for release in two_releases:  # the second takes the name of the first
        revision = manifest.digest(release)
        packed = slimline(store, "pack", release, URL)
        assert (packed.returncode, revision in packed.stdout) == (0, True), packed.stderr
        done = slimline(store, "deploy", URL, "--to", deployment.path, "--revision", revision)
        assert done.returncode == 0, done.stderr
        assert deployment.revision() == revision == manifest.verify(deployment.directory(revision))
    other = slimline(store, "deploy", URL, "--to", deployment.path, "--revision", "sha256:0000")
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert deployment.revision() == revision


@pytest.mark.parametrize("is_damaged", [False, True], ids=["whole", "damaged"])
def test_a_release_lies_in_s3_as_a_directory(
    store: str, two_releases: tuple[Path, Path], tmp_path: Path, is_damaged: bool
) -> None:
    release, folder = two_releases[0], f"models/{is_damaged}"
    for path in filter(Path.is_file, release.rglob("*")):
        content = b"short" if is_damaged and path.name == "golden.npz" else path.read_bytes()
        httpx.put(f"{store}/{folder}/{path.relative_to(release)}", content=content).raise_for_status()
    done = slimline(store, "unpack", f"s3://{folder}", tmp_path / "arrived")
    if is_damaged:
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert f"s3://{folder}/golden.npz: 5 bytes" in done.stderr
        assert not list(tmp_path.iterdir())
    else:
        assert done.returncode == 0, done.stderr
        assert manifest.verify(tmp_path / "arrived") == manifest.digest(release)


@pytest.mark.parametrize(
    ("url", "away", "said"),
    [
        ("s3://models/nowhere.tar.gz", False, "not found"),
        ("s3://nobodys/release.tar.gz", False, "not found"),
        (URL, True, "Could not connect"),
    ],
    ids=["no such object", "no such bucket", "nobody listens"],
)
def test_a_store_that_fails_is_one_line(store: str, tmp_path: Path, url: str, away: bool, said: str) -> None:
    address = f"http://127.0.0.1:{free_ports()}" if away else store
    done = slimline(address, "deploy", url, "--to", tmp_path / "deployed")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert url in done.stderr
    assert said in done.stderr
    assert Deployment(tmp_path / "deployed").releases() == []
