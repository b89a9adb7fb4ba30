"""Probes of a real endpoint: its own interface, Open Inference, and what is said when it answers badly."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from slimline import manifest
from slimline.cli.monitoring import app
from slimline.endpoint.settings import Settings
from slimline.monitor import probe
from slimline.monitor.asking import Answered
from slimline.monitor.standing import State
from slimline.predictor import Arrays
from slimline.task import Split
from tests.endpoint.conftest import Server, until

PATHS = pytest.mark.parametrize("path", ["", "/predict", "/v2/models/digits"], ids=["own", "predict", "inference"])


@pytest.fixture(scope="module")
def endpoint(two_releases: tuple[Path, Path]) -> Iterator[Server]:
    server = Server(Settings(release=two_releases[0], event_store="", reload_seconds=0.0))
    yield server
    server.stop()


def options(url: str, release: Path, **other: object) -> probe.Options:
    chosen = {"inputs": None, "labels": "label", "params": None, "variant": "probe", "timeout": 5.0} | other
    return probe.Options(url, release, **chosen)  # type: ignore[arg-type]


@PATHS
def test_the_release_that_answers_is_recognized(
    endpoint: Server, two_releases: tuple[Path, Path], path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe.once(options(endpoint.url + path, two_releases[0]))
    said = capsys.readouterr().out
    assert "16 of 16 golden rows" in said
    assert "labelled rows right" in said


def test_another_release_there_is_told(
    endpoint: Server, two_releases: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert not probe.once(options(endpoint.url, two_releases[1]))
    assert f"{manifest.digest(two_releases[0])} answers" in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "good"), [(0.0, True), (0.2, False)])
def test_latency_is_judged_by_the_benchmark_where_nothing_is_set(
    endpoint: Server, two_releases: tuple[Path, Path], seconds: float, good: bool
) -> None:
    made = probe.made(options(endpoint.url, two_releases[0]))
    asked = made.asker.ask

    def late(inputs: Arrays) -> Answered:
        answer = asked(inputs)
        return answer._replace(seconds=0.001 + seconds)

    made.asker.ask = late  # type: ignore[method-assign]
    found = {each.signal: each for each in made.round()}["latency"]
    made.asker.close()
    assert found.limit == pytest.approx(0.1 + 2 * 0.1 / 1e3)
    assert (found.state is State.OK) == good


def test_answers_that_changed_are_bad(
    endpoint: Server, two_releases: tuple[Path, Path], resealed: Callable[..., Path], tmp_path: Path
) -> None:
    """Goldens of another model: their outputs rolled by one class."""

    def roll(folder: Path, _: object) -> None:
        with np.load(folder / "golden.npz") as arrays:
            found = {name: np.roll(each, 1, 1) if "output/" in name else each for name, each in arrays.items()}
        np.savez_compressed(folder / "golden.npz", **found)

    made = probe.made(options(endpoint.url, resealed(two_releases[0], tmp_path / "rolled", roll)))
    first = {each.signal: each.state for each in made.round()}
    assert first["agreement"] is State.WATCH
    assert {each.signal: each.state for each in made.round()}["agreement"] is State.REGRESSED
    made.asker.close()


def test_labelled_rows_are_sent_too(
    endpoint: Server, two_releases: tuple[Path, Path], splits: dict[str, Split], tmp_path: Path
) -> None:
    split = splits["validation"]
    np.savez(tmp_path / "rows.npz", labels=split.targets, **split.inputs)
    made = probe.made(options(endpoint.url, two_releases[0], inputs=tmp_path / "rows.npz", labels="labels"))
    accuracy = next(each for each in made.round() if each.signal == "accuracy")
    made.asker.close()
    assert accuracy.count == 16 + len(split)


def test_an_endpoint_that_is_away_is_one_line_and_exit_1(two_releases: tuple[Path, Path]) -> None:
    done = CliRunner().invoke(app, ["probe", "http://127.0.0.1:9", "--release", str(two_releases[0])])
    assert done.exit_code == 1
    assert done.output.startswith("BAD errors: 1 of 16 requests failed: http://127.0.0.1:9: ConnectionRefusedError")


def test_it_probes_on_and_on(endpoint: Server, two_releases: tuple[Path, Path], tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "slimline",
        "probe",
        endpoint.url,
        "--release",
        str(two_releases[0]),
        "--every",
        "0.2",
    ]
    log = tmp_path / "log"
    with log.open("w") as out, subprocess.Popen([*command, "--port", "0"], stderr=out) as process:
        try:
            until(lambda: "metrics at" in log.read_text(), 60)
            url = log.read_text().split()[-1]
            until(lambda: "slimline_probe_up" in httpx.get(url).text, 30)
            shown = httpx.get(url).text
        finally:
            process.terminate()
    assert process.returncode == 0
    found = {
        (sample.name, sample.labels.get("signal")): (sample.value, sample.labels["revision"])
        for family in text_string_to_metric_families(shown)
        for sample in family.samples
    }
    revision = manifest.digest(two_releases[0])
    assert found["slimline_probe_up", None] == (1.0, revision)
    assert found["slimline_regression_state", "agreement"] == (0.0, revision)
