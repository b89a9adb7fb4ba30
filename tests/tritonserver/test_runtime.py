"""A remote Triton behind Predictor: the same face, the right revision, and what a caller sees when it is away."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from slimline import goldens, manifest
from slimline.errors import InputError, RevisionError, UnavailableError
from slimline.model_repository.repository import Options, write
from slimline.predictor import Predictor
from slimline.runtimes import triton

from .conftest import MODEL, Server


def address(server: Server, query: str = "", model: str = MODEL) -> str:
    return f"triton+grpc://{server.grpc}/{model}{query}"


@pytest.mark.parametrize("version", [1, 2])
def test_a_release_finds_its_own_version(
    server: Server, two_releases: tuple[Path, Path], rows: NDArray[np.float32], version: int
) -> None:
    release = two_releases[version - 1]
    remote = Predictor(release, address(server))
    expected = Predictor(release, threads=1).predict({"image": rows})
    found = remote.predict({"image": rows})
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-5, atol=1e-5)
    assert remote.revision == manifest.digest(release)
    assert goldens.check(remote, release).rows == 16
    remote.close()


def test_an_export_alone_is_known_by_its_digest(
    server: Server, two_releases: tuple[Path, Path], rows: NDArray[np.float32], tmp_path: Path
) -> None:
    export = shutil.copytree(two_releases[0] / "chain" / "distill", tmp_path / "distill")
    assert Predictor(export, address(server)).predict({"image": rows})["logits"].shape == (12, 10)


def test_a_batch_beyond_the_models_largest_is_sent_in_parts(
    server: Server, two_releases: tuple[Path, Path], rows: NDArray[np.float32]
) -> None:
    many = np.concatenate([rows, -rows, rows + 1, rows[:1]])
    expected = Predictor(two_releases[1], threads=1).predict({"image": many})["logits"]
    found = Predictor(two_releases[1], address(server)).predict({"image": many})["logits"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_another_revision_is_refused(
    server: Server, two_releases: tuple[Path, Path], make_release: Callable[..., str], tmp_path: Path
) -> None:
    revision = make_release(tmp_path / "three", scale=0.5)
    with pytest.raises(RevisionError) as caught:
        Predictor(tmp_path / "three", address(server))
    said = str(caught.value)
    assert f"it doesn't run {revision} but version 1 is {manifest.digest(two_releases[0])}, version 2 is" in said
    with pytest.raises(RevisionError, match="in version 2 but"):
        Predictor(two_releases[0], address(server, "?version=2"))


def test_a_model_of_another_face_is_refused(server: Server, two_releases: tuple[Path, Path]) -> None:
    with pytest.raises(RevisionError, match=r"its input 'image' is missing, the release's \('FP32', \[-1, 1, 8, 8\]\)"):
        Predictor(two_releases[1], address(server, model="digits-raw"))


def test_an_unknown_model_is_one_line(server: Server, two_releases: tuple[Path, Path]) -> None:
    with pytest.raises(UnavailableError, match=r"triton at .*: model digit: .*digit") as caught:
        Predictor(two_releases[0], address(server, "?attempts=1", model="digit"))
    assert "\n" not in str(caught.value)


def test_what_the_server_refuses_is_an_input_error(server: Server, two_releases: tuple[Path, Path]) -> None:
    remote = Predictor(two_releases[0], address(server))
    with pytest.raises(InputError, match="holds NaN"):
        remote.runtime.run({"image": np.full((1, 1, 8, 8), np.nan, np.float32)})


def test_a_killed_server_is_told_and_its_return_is_found(
    serve: Callable[..., Server], two_releases: tuple[Path, Path], rows: NDArray[np.float32]
) -> None:
    server = serve([two_releases[0]], largest=16)
    remote = Predictor(two_releases[0], address(server, "?timeout=2"))
    before = remote.predict({"image": rows})["logits"]
    server.stop(signal.SIGKILL)
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(UnavailableError, match=rf"^triton at {server.grpc}: model digits: unavailable: ") as caught:
            remote.predict({"image": rows})
        assert "\n" not in str(caught.value)
        assert time.monotonic() - started < 2.5
    server.start()
    eventually(remote, rows)
    np.testing.assert_array_equal(remote.predict({"image": rows})["logits"], before)

    server.stop(signal.SIGKILL)  # and nobody asks until it is back with another release
    write([two_releases[1]], server.repository, Options(backend="python", largest=16))
    server.start()
    time.sleep(triton.RECHECK)
    with pytest.raises(RevisionError, match="it doesn't run"):
        eventually(remote, rows)
    server.stop()


def eventually(remote: Predictor, rows: NDArray[np.float32]) -> None:
    """Ask until the server is reached."""
    for _ in range(50):
        try:
            remote.predict({"image": rows})
        except RevisionError:
            raise
        except UnavailableError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the server wasn't reached within 5 s")


def test_a_release_exchanged_under_the_same_version_is_noticed(
    serve: Callable[..., Server], two_releases: tuple[Path, Path], rows: NDArray[np.float32]
) -> None:
    server = serve([two_releases[0]], largest=16)
    remote = Predictor(two_releases[0], address(server))
    remote.predict({"image": rows})
    write([two_releases[1]], server.repository, Options(backend="python", largest=16))
    assert server.get(f"/v2/repository/models/{MODEL}/load", b"{}")[0] == 200
    time.sleep(triton.RECHECK)
    with pytest.raises(RevisionError, match="it doesn't run"):
        remote.predict({"image": rows})
    server.stop()


def test_a_server_too_slow_is_told_by_the_deadline(
    serve: Callable[..., Server], two_releases: tuple[Path, Path], rows: NDArray[np.float32]
) -> None:
    server = serve([two_releases[0]], largest=16)
    remote = Predictor(two_releases[0], address(server, "?timeout=1.0"))
    remote.predict({"image": rows})
    server.send(signal.SIGSTOP)
    try:
        started = time.monotonic()
        with pytest.raises(UnavailableError, match=r"no answer within 1 s$"):
            remote.predict({"image": rows})
        assert 0.9 < time.monotonic() - started < 1.5
    finally:
        server.send(signal.SIGCONT)
    eventually(remote, rows)
    server.stop()
