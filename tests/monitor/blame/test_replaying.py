"""Kept inputs, and rows from files, are replayed through every stage on what each was measured with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimline.errors import DataError, InputError, SlimlineError
from slimline.monitor.blame import blame, inputs, replayed
from slimline.predictor import Predictor
from tests.monitor.blame.planted import LINE, Traffic, Workshop, blurred


def test_inputs_are_replayed_through_every_stage(releases: dict[str, Path], workshop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    np.savez(path, image=workshop.images[:300], label=workshop.labels[:300])
    for name, verdict in {"good": "nothing", "miscalibrated": "quantize"}.items():
        rows = inputs.read(releases[name], path, "label")
        found = blame(releases[name], rows=rows, incumbent=releases["good"], rounds=0)
        assert (found.verdict, found.rows, found.labelled) == (verdict, 300, 300)
    np.savez(path, image=blurred(workshop.images), label=workshop.labels)
    assert blame(releases["good"], rows=inputs.read(releases["good"], path, "label"), rounds=0).verdict == "data"


def measured_on(release: Path, target: Path, resealed: Callable[..., Path], runtime: str) -> Path:
    """The same release, whose last stage was measured with ``runtime``."""
    return resealed(release, target, lambda _, card: card["benchmark"]["stages"]["quantize"].update(runtime=runtime))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The stages that blame loads, with the runtimes that it loads them with."""
    found: list[tuple[str, str]] = []

    class Noted(Predictor):
        def __init__(self, *arguments: Any, **keys: Any) -> None:
            super().__init__(*arguments, **keys)
            found.append((self.directory.name, self.runtime_name))

    monkeypatch.setattr("slimline.monitor.blame.chain.Predictor", Noted)
    return found


def test_a_stage_runs_on_what_it_was_measured_with(
    good: Path, workshop: Workshop, tmp_path: Path, resealed: Callable[..., Path], asked: list[tuple[str, str]]
) -> None:
    """Another runtime takes another time, and gives other answers."""
    release = measured_on(good, tmp_path / "rows", resealed, "onnxruntime-rows")
    expected = [(stage, "onnxruntime") for stage in LINE[:-1]] + [(LINE[-1], "onnxruntime-rows")]
    replayed(release, {"image": workshop.images[:10]})
    assert asked == expected
    assert len(blame(release, rounds=2).timed) == len(LINE)
    assert asked == expected * 2


def test_a_runtime_that_is_not_here_stops_no_blame(
    good: Path, workshop: Workshop, tmp_path: Path, resealed: Callable[..., Path], asked: list[tuple[str, str]],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """A monitor may have no GPU: the answers are nearly the same on what it has, the times aren't."""
    release = measured_on(good, tmp_path / "gpu", resealed, "tensorrt")
    rows = replayed(release, {"image": workshop.images[:300]}, workshop.labels[:300].tolist())
    assert asked[-1] == ("quantize", "onnxruntime")
    found = blame(release, rows=rows, rounds=2)
    assert (found.verdict, found.timed) == ("nothing", [])
    assert "its answers are replayed with onnxruntime" in caplog.text
    assert "the stages aren't timed" in caplog.text


def test_inputs_kept_by_the_store_are_replayed_through_the_incumbent(
    releases: dict[str, Path], workshop: Workshop, tmp_path: Path
) -> None:
    """Under blur the incumbent loses as much at the same stages: nothing that its stages do is to blame."""
    traffic = Traffic(mode="sampled", change=blurred)
    again = workshop.release("good-again", seed=1)
    with traffic.write(f"sqlite:///{tmp_path}/kept.db", again, workshop, 0) as store:
        found = blame(again, store, incumbent=releases["good"], signal="accuracy", rounds=0)
    assert found.verdict == "data"
    assert found.allowed.startswith(("the incumbent's", "the budget's"))


def test_images_in_folders_named_by_their_labels(good: Path, workshop: Workshop, tmp_path: Path) -> None:
    from PIL import Image

    for place in range(40):
        folder = tmp_path / "images" / str(workshop.labels[place])
        folder.mkdir(parents=True, exist_ok=True)
        pixels = workshop.images[place, 0] * 0.3760 + 0.3053
        Image.fromarray(np.rint(pixels * 255).astype(np.uint8), "L").save(folder / f"{place}.png")
    rows = inputs.read(good, tmp_path / "images", "label")
    assert sorted(rows.labels.tolist()) == sorted(workshop.labels[:40].tolist())
    assert (rows.outputs["teacher"].argmax(1) == rows.labels).mean() > 0.8


@pytest.mark.parametrize(
    ("name", "arrays", "error", "message"),
    [
        ("rows.npz", {"picture": np.zeros((2, 1, 8, 8), np.float32)}, InputError, "input 'picture' is unknown"),
        ("rows.npz", {"image": np.zeros((2, 1, 8, 8), np.float32), "label": np.zeros(3)}, DataError, "equally many"),
        ("rows.npz", {"image": np.zeros((1, 1, 8, 8), np.float32), "label": ["cat"]}, DataError, "'cat' is no label"),
        ("rows.npz", None, DataError, "can't be read"),
        ("rows.txt", None, DataError, "a folder of images, .csv"),
        ("rows.csv", None, DataError, "no column"),
    ],
)
def test_inputs_that_do_not_fit_are_named(
    good: Path, tmp_path: Path, name: str, arrays: Any, error: type[SlimlineError], message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"nothing")
    if arrays is not None:
        np.savez(path, **arrays)
    with pytest.raises(error, match=message) as raised:
        inputs.read(good, path, "label")
    assert str(raised.value).count(str(path)) == 1
