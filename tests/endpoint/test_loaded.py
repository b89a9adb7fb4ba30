"""What a release brings when it is loaded: its threads, its golden requests, and a warning on other machines."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from slimline.endpoint.app import create_app
from slimline.endpoint.cycles import YOUNG
from slimline.endpoint.settings import Settings
from slimline.errors import GoldenError
from tests.endpoint.conftest import Serve

Resealed = Callable[..., Path]


@pytest.mark.parametrize(("told", "expected"), [(0, 2), (1, 1)], ids=["as measured", "as told"])
def test_the_session_has_the_threads_of_the_measurements(
    serve: Serve, release: Path, resealed: Resealed, tmp_path: Path, told: int, expected: int
) -> None:
    def change(_: Path, card: dict[str, Any]) -> None:
        card["benchmark"]["stages"][card["last"]]["threads"] = 2

    client = serve(release=resealed(release, tmp_path / "release", change), threads=told)
    session = client.app.state.core.variants.primary.live.predictor.runtime._session  # type: ignore[attr-defined]
    options = session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (expected, 1)


def test_a_machine_that_lacks_what_the_benchmarks_had_is_warned_of_once(
    serve: Serve, release: Path, resealed: Resealed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def change(_: Path, card: dict[str, Any]) -> None:
        card["benchmark"]["machine"]["instructions"] += ["avx512_from_tomorrow"]

    with caplog.at_level(logging.WARNING):
        serve(release=resealed(release, tmp_path / "release", change))
    (said,) = [record.getMessage() for record in caplog.records if record.name.startswith("slimline")]
    assert "this CPU has no avx512_from_tomorrow, the benchmark's had" in said


def test_a_whole_release_that_answers_otherwise_than_its_goldens_does_not_start(
    serve: Serve, release: Path, resealed: Resealed, tmp_path: Path
) -> None:
    def change(folder: Path, card: dict[str, Any]) -> None:
        path = folder / "golden.npz"
        with np.load(path) as arrays:
            changed = dict(arrays)
        changed[f"output/{card['last']}"] = -changed[f"output/{card['last']}"]
        np.savez(path, **changed)

    with pytest.raises(GoldenError, match="doesn't answer its golden requests") as caught:
        serve(release=resealed(release, tmp_path / "release", change))
    assert "\n" not in str(caught.value)


def test_a_serving_process_looks_for_cycles_less_often(release: Path) -> None:
    """At Python's own threshold, events that wait for the store were looked through again and again."""
    before = gc.get_threshold()
    settings = Settings(release=release, event_store="", reload_seconds=0.0)
    with TestClient(create_app(settings)):
        assert gc.get_threshold() == (YOUNG, *before[1:])
    assert gc.get_threshold() == before


def test_of_two_in_one_process_the_last_to_stop_looks_as_often_as_before(release: Path) -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    settings = Settings(release=release, event_store="", reload_seconds=0.0)
    first, second = TestClient(create_app(settings)), TestClient(create_app(settings))
    with first:
        with second:
            pass
        assert gc.get_threshold() == (YOUNG, *before[1:])
        assert gc.get_freeze_count() > frozen
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, frozen)
