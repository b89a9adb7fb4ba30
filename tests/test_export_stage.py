"""The export stage: what a runtime answers is held against torch before the export is kept."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from slimline import artifact, manifest, params
from slimline.artifact import Artifact, Named
from slimline.errors import ExportError
from slimline.models.cnn import Cnn
from slimline.runtimes.onnxruntime import OnnxRuntime
from slimline.stage import Stage
from slimline.tasks.digits import Digits
from tests.pictures import LABELS, write_folders

ROWS = 50
WRONG = 5


class Mistaken(OnnxRuntime):
    """ONNX Runtime that answers its first five rows with another class."""

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        answers = super().run(inputs)
        return {name: np.concatenate([-out[:WRONG], out[WRONG:]]) for name, out in answers.items()}


class Wild(OnnxRuntime):
    """ONNX Runtime that answers one row with what is no number."""

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        answers = super().run(inputs)
        for out in answers.values():
            out[2] = np.nan
        return answers


@pytest.fixture
def export(
    cnn: Cnn, described: dict[str, Artifact], document: dict[str, Any], project: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Any]:  # fmt: skip
    """Export the small network as ``teacher`` with these keys of ``export`` and return its facts.json."""
    monkeypatch.chdir(tmp_path)
    artifact.save(Path("artifacts/teacher"), cnn, described["cnn"])
    spec = importlib.util.spec_from_file_location("export_script", project / "stages" / "export.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def run(runtime: str = "onnxruntime", **keys: Any) -> Any:
        document["target"] = {"runtime": runtime}
        document["export"] |= {"samples": ROWS, **keys}
        Path("params.yaml").write_text(yaml.safe_dump(document))
        script.main(Stage("teacher", params.load(), None))
        return manifest.read_json(Path("exports/teacher/facts.json"))

    return run


def test_a_runtime_that_answers_otherwise_is_refused_by_stage_and_key(export: Callable[..., Any]) -> None:
    export()
    before = manifest.verify(Path("exports/teacher"))
    with pytest.raises(ExportError) as caught:
        export(f"{__name__}:Mistaken", min_agreement=0.95)
    assert str(caught.value).startswith(
        f"exports/teacher: answers agree with torch on 90.00% of {ROWS} rows, "
        "params.yaml: export.min_agreement is 95.00%; max error "
    )
    assert "\n" not in str(caught.value)
    assert manifest.verify(Path("exports/teacher")) == before, "the export that stood there stands"
    assert [path.name for path in Path("exports").iterdir()] == ["teacher"]


@pytest.mark.parametrize("decides", [True, False])
def test_outputs_that_are_no_numbers_are_told_by_stage_and_file(
    export: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, decides: bool
) -> None:
    """Thresholds were fitted to them, or the largest of NaNs was taken for an answer."""
    monkeypatch.setattr(Digits, "decides", decides)
    rows = r"\d+" if decides else ROWS
    with pytest.raises(
        ExportError, match=rf"^exports/teacher/model.onnx: outputs of 1 of {rows} validation rows are not"
    ):
        export(f"{__name__}:Wild", min_agreement=0.5)
    assert not Path("exports/teacher").exists()


def test_agreement_as_asked_is_kept_and_recorded(
    export: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert export()["parity"]["agreement"] == 1
    said = rf"teacher: [\d,]+ bytes, answers agree with torch on 100\.00% of {ROWS} validation rows, outputs"
    assert re.search(said, capsys.readouterr().out)
    parity = export(f"{__name__}:Mistaken", min_agreement=0.9)["parity"]
    assert parity["agreement"] == pytest.approx(1 - WRONG / ROWS)
    assert parity["rows"] == ROWS
    assert parity["max_error"] > 1


def test_fewer_pictures_than_samples_are_enough(
    export: Callable[..., Any], document: dict[str, Any], tmp_path: Path
) -> None:
    """The rows of a whole split are no array, which only slices of it are: this used to be a RuntimeError."""
    write_folders(tmp_path / "pictures", 10)
    document["task"] = {"name": "images", "args": {"data": "pictures", "labels": LABELS, "size": [8, 8]}}
    args = {"width": 4, "classes": 3, "channels": 3}
    shutil.rmtree("artifacts/teacher")
    made = Artifact(Named("images", document["task"]["args"]), Named("cnn", args), [], "teacher")
    artifact.save(Path("artifacts/teacher"), Cnn(**args), made)
    assert export()["parity"]["rows"] < ROWS
