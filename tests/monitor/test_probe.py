"""Probes of a real endpoint: its own interface, Open Inference, and what is said when it answers badly."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from slimline import goldens, manifest
from slimline.cli.monitoring import app
from slimline.endpoint.settings import Settings
from slimline.errors import ParamsError
from slimline.monitor import probe_command
from slimline.monitor.asking import Answered
from slimline.monitor.standing import State
from slimline.predictor import Arrays
from slimline.task import Split
from tests.endpoint.conftest import Server, until

TOKEN = "3q2-7wexample-token-1"  # noqa: S105
PATHS = pytest.mark.parametrize("path", ["", "/predict", "/v2/models/digits"], ids=["own", "predict", "inference"])


@pytest.fixture(scope="module")
def endpoint(two_releases: tuple[Path, Path]) -> Iterator[Server]:
    server = Server(Settings(release=two_releases[0], event_store="", reload_seconds=0.0))
    yield server
    server.stop()


def options(url: str, release: Path, **other: object) -> probe_command.Options:
    chosen = {"inputs": None, "labels": "label", "params": None, "variant": "probe", "timeout": 5.0} | other
    return probe_command.Options(url, release, **chosen)  # type: ignore[arg-type]


@PATHS
def test_the_release_that_answers_is_recognized(
    endpoint: Server, two_releases: tuple[Path, Path], path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe_command.once(options(endpoint.url + path, two_releases[0]))
    said = capsys.readouterr().out
    assert "16 of 16 golden rows" in said
    assert "labelled rows right" in said


def test_another_release_there_is_told(
    endpoint: Server, two_releases: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert not probe_command.once(options(endpoint.url, two_releases[1]))
    assert f"{manifest.digest(two_releases[0])} answers" in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "good"), [(0.0, True), (0.2, False)])
def test_latency_is_judged_by_the_benchmark_where_nothing_is_set(
    endpoint: Server, two_releases: tuple[Path, Path], seconds: float, good: bool
) -> None:
    made = probe_command.made(options(endpoint.url, two_releases[0]))
    asked = made.asker.ask

    def late(inputs: Arrays) -> Answered:
        answer = asked(inputs)
        return answer._replace(seconds=0.001 + seconds)

    made.asker.ask = late  # type: ignore[method-assign]
    found = {each.signal: each for each in made.round()}["latency"]
    made.asker.close()
    assert found.limit == pytest.approx(0.1 + 2 * 0.1 / 1e3)
    assert (found.state is State.OK) == good


def own_seconds(endpoint: Server, revision: str) -> tuple[float, float]:
    """Return (sum, count) of what the endpoint itself says its requests took."""
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(httpx.get(f"{endpoint.url}/metrics").text)
        for sample in family.samples
        if sample.labels.get("part") == "total" and sample.labels["revision"] == revision
    }
    name = "slimline_request_duration_seconds"
    return samples.get(f"{name}_sum", 0.0), samples.get(f"{name}_count", 0.0)


def test_time_before_the_server_reads_is_seen_by_the_probe_alone(
    endpoint: Server, two_releases: tuple[Path, Path], document: dict[str, Any], tmp_path: Path
) -> None:
    """A process that stands still as each request arrives."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document | {"monitor": {"latency_ms": {"total": 50}}}))
    made = probe_command.made(options(endpoint.url, two_releases[0], params=tmp_path / "params.yaml"))
    asked, loop = made.asker.ask, endpoint.loop

    def held_up(inputs: Arrays) -> Answered:
        loop.call_soon_threadsafe(time.sleep, 0.1)
        return asked(inputs)

    made.asker.ask = held_up  # type: ignore[method-assign]
    before = own_seconds(endpoint, manifest.digest(two_releases[0]))
    latency = {each.signal: each for each in made.round()}["latency"]
    after = own_seconds(endpoint, manifest.digest(two_releases[0]))
    made.asker.close()
    assert latency.limit == 0.05
    assert latency.value is not None
    assert latency.value > 0.09
    assert latency.state is State.WATCH, "it is regressed when the next round is bad, too"
    count = after[1] - before[1]
    assert count == 16
    assert (after[0] - before[0]) / count < 0.05, "its own numbers keep the objective"


def test_answers_that_changed_are_bad(
    endpoint: Server, two_releases: tuple[Path, Path], resealed: Callable[..., Path], tmp_path: Path
) -> None:
    """Goldens of another model: their outputs rolled by one class."""

    def roll(folder: Path, _: object) -> None:
        with np.load(folder / "golden.npz") as arrays:
            found = {name: np.roll(each, 1, 1) if "output/" in name else each for name, each in arrays.items()}
        np.savez_compressed(folder / "golden.npz", **found)

    made = probe_command.made(options(endpoint.url, resealed(two_releases[0], tmp_path / "rolled", roll)))
    first = {each.signal: each.state for each in made.round()}
    assert first["agreement"] is State.WATCH
    assert {each.signal: each.state for each in made.round()}["agreement"] is State.REGRESSED
    made.asker.close()


@pytest.fixture(scope="module")
def many(many_release: Path) -> Iterator[Server]:
    server = Server(Settings(release=many_release, event_store="", reload_seconds=0.0))
    yield server
    server.stop()


@PATHS
def test_of_any_of_several_labels_the_sets_answered_are_compared(many: Server, many_release: Path, path: str) -> None:
    made = probe_command.made(options(many.url + path, many_release))
    truth = goldens.targets(many_release) > 0
    said = made.answers.above(made.golden)
    found = {each.signal: each for each in made.round()}
    assert found["agreement"].value == 1.0
    assert found["accuracy"].count == len(truth)
    assert found["accuracy"].value == (said == truth).all(1).mean()
    made.golden[0, made.golden[0].argmin()] = 0.9999  # one label more, below the likeliest
    assert made.round()[1].value == 15 / 16
    made.asker.close()


def test_labelled_rows_of_any_of_several_labels_are_refused(many_release: Path, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="--inputs: rows of one label each are read"):
        probe_command.made(options("http://127.0.0.1:9", many_release, inputs=tmp_path / "rows.npz"))


@pytest.fixture
def guarded(two_releases: tuple[Path, Path]) -> Iterator[Server]:
    """An endpoint that asks for a token."""
    tokens = f"predict {TOKEN};feedback {TOKEN[::-1]}"
    server = Server(Settings(release=two_releases[0], event_store="", reload_seconds=0.0, tokens=tokens))
    yield server
    server.stop()


@PATHS
def test_an_endpoint_that_asks_for_a_token_is_probed_with_one(
    guarded: Server, two_releases: tuple[Path, Path], path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is read again for each round: an exchanged one is found."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    made = probe_command.made(options(guarded.url + path, two_releases[0], token_file=file))
    assert {each.state for each in made.round()} == {State.OK}
    for content, said in (
        ("", "HTTP 401"),
        (TOKEN[::-1], "HTTP 403"),
        (f"predict {TOKEN}", f"--token-file: {file}: one token is expected, without its scopes"),
    ):
        file.write_text(content)
        (errors,) = made.round()
        assert said in errors.message
    file.unlink()
    assert f"--token-file: {file}: can't be read" in made.round()[0].message
    file.write_text(TOKEN)
    assert {each.state for each in made.round()} == {State.OK}
    made.asker.close()
    arguments = ["probe", guarded.url + path, "--release", str(two_releases[0])]
    assert CliRunner().invoke(app, [*arguments, "--token-file", str(file)]).exit_code == 0
    assert "HTTP 401" in CliRunner().invoke(app, arguments).output


def test_a_triton_is_asked_without_a_token(two_releases: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="--token-file: a Triton asks for no token"):
        probe_command.made(options("triton+grpc://127.0.0.1:9/digits", two_releases[0], token_file=tmp_path / "token"))


def test_labelled_rows_are_sent_too(
    endpoint: Server, two_releases: tuple[Path, Path], splits: dict[str, Split], tmp_path: Path
) -> None:
    split = splits["validation"]
    np.savez(tmp_path / "rows.npz", labels=split.targets, **split.inputs)
    made = probe_command.made(options(endpoint.url, two_releases[0], inputs=tmp_path / "rows.npz", labels="labels"))
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
