from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimline import goldens, manifest
from slimline.errors import ArtifactError, ReleaseError
from slimline.model_repository import vendoring
from slimline.model_repository.repository import BACKEND, Options, write
from tests.lint.models import convolution
from tests.text_releases import without_ranges

Measured = Callable[..., Path]
ENGINE = {"engine": "model.engine", "library": "tensorrt 10.13.0", "profile": {"image": [[1] * 4, [4] * 4, [6] * 4]}}


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_inputs_outputs_and_labels_are_the_signatures(
    two_releases: tuple[Path, Path], tmp_path: Path, parsed: Any
) -> None:
    write(two_releases[:1], tmp_path / "out", Options())
    config = parsed(tmp_path / "out" / "digits" / "config.pbtxt")
    assert (config.name, config.backend, config.max_batch_size) == ("digits", "onnxruntime", 1)
    assert [(each.name, list(each.dims)) for each in (*config.input, *config.output)] == [
        ("image", [1, 8, 8]), ("logits", [10]),
    ]  # fmt: skip
    assert not config.HasField("dynamic_batching")
    labels = (tmp_path / "out" / "digits" / config.output[0].label_filename).read_text().splitlines()
    assert labels == [str(digit) for digit in range(10)]


def test_batching_threads_and_instances(measured: Measured, tmp_path: Path, parsed: Any) -> None:
    write([measured({1: 0.1, 8: 0.4, 32: 2.0})], tmp_path / "out", Options(instances=3))
    config = parsed(tmp_path / "out" / "digits" / "config.pbtxt")
    assert config.max_batch_size == 32
    assert list(config.dynamic_batching.preferred_batch_size) == [8]
    assert config.dynamic_batching.max_queue_delay_microseconds == 50
    assert config.parameters["intra_op_thread_count"].string_value == "2"
    assert [(each.count, each.kind) for each in config.instance_group] == [(3, 2)]  # KIND_CPU
    chosen = Options(largest=4, delay=7, threads=1, backend="python", name="other")
    write([measured({1: 0.1, 8: 0.4})], tmp_path / "out", chosen)
    config = parsed(tmp_path / "out" / "other" / "config.pbtxt")
    assert (config.max_batch_size, config.dynamic_batching.max_queue_delay_microseconds) == (4, 7)
    assert list(config.dynamic_batching.preferred_batch_size) == []
    assert config.parameters["threads"].string_value == "1"


def test_the_warm_up_is_a_golden_row(measured: Measured, tmp_path: Path, parsed: Any) -> None:
    release = measured({1: 0.1, 8: 0.4})
    write([release], tmp_path / "out", Options())
    config = parsed(tmp_path / "out" / "digits" / "config.pbtxt")
    assert [each.batch_size for each in config.model_warmup] == [1, 8]
    inputs, _ = goldens.read(release, "distill")
    for each in config.model_warmup:
        row = each.inputs["image"]
        content = (tmp_path / "out" / "digits" / "warmup" / row.input_data_file).read_bytes()
        np.testing.assert_array_equal(np.frombuffer(content, np.float32).reshape(list(row.dims)), inputs["image"][0])


def test_revisions_are_in_the_parameters(two_releases: tuple[Path, Path], tmp_path: Path, parsed: Any) -> None:
    write(two_releases, tmp_path / "out", Options())
    for folder in ("digits", "digits-preprocess"):
        parameters = parsed(tmp_path / "out" / folder / "config.pbtxt").parameters
        for version, release in enumerate(two_releases, 1):
            assert parameters[f"revision.{version}"].string_value == manifest.digest(release)
            assert parameters[f"export.{version}"].string_value == manifest.digest(release / "chain" / "distill")
            assert parameters[f"stage.{version}"].string_value == "distill"


def test_each_version_has_an_ensemble_of_its_own_steps(
    two_releases: tuple[Path, Path], tmp_path: Path, parsed: Any
) -> None:
    write(two_releases, tmp_path / "out", Options())
    for folder, version in (("digits-raw", 2), ("digits-raw-v1", 1)):
        config = parsed(tmp_path / "out" / folder / "config.pbtxt")
        steps = config.ensemble_scheduling.step
        assert [(step.model_name, step.model_version) for step in steps] == [
            ("digits-preprocess", version), ("digits", version),
        ]  # fmt: skip
        assert list(config.version_policy.specific.versions) == [version]
        assert (tmp_path / "out" / folder / str(version)).is_dir()
        assert (config.input[0].name, config.input[0].data_type, list(config.input[0].dims)) == ("raw", 13, [1])
        fed = dict(steps[0].output_map)["image"]
        assert dict(steps[1].input_map)["image"] == fed


@pytest.mark.parametrize(
    ("served", "policy", "ensembles"),
    [
        (0, "all", {"digits-raw", "digits-raw-v1"}),
        (1, "latest", {"digits-raw"}),
        ((1,), "specific", {"digits-raw-v1"}),
    ],
)
def test_the_version_policy(
    two_releases: tuple[Path, Path], tmp_path: Path, parsed: Any, served: Any, policy: str, ensembles: set[str]
) -> None:
    write(two_releases, tmp_path / "out", Options(served=served))
    found = parsed(tmp_path / "out" / "digits" / "config.pbtxt").version_policy
    assert found.WhichOneof("policy_choice") == policy
    assert {path.name for path in (tmp_path / "out").glob("*-raw*")} == ensembles
    assert {path.name for path in (tmp_path / "out" / "digits").iterdir() if path.is_dir()} == {"1", "2", "warmup"}


def test_the_same_releases_give_the_same_bytes(two_releases: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(two_releases, tmp_path / name, Options(backend="python"))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_what_stood_there_stays_until_the_new_is_whole(
    two_releases: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(two_releases[:1], tmp_path / "out", Options(backend="python"))
    before = tree(tmp_path / "out")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vendoring, "copy", full)
    with pytest.raises(ArtifactError, match="the disk is full; nothing was changed"):
        write(two_releases, tmp_path / "out", Options(backend="python"))
    assert tree(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_something_else_is_not_replaced(two_releases: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ReleaseError, match="holds something else than a model repository"):
        write(two_releases, tmp_path, Options())
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_the_python_backend_carries_all_it_imports(two_releases: tuple[Path, Path], tmp_path: Path) -> None:
    write(two_releases, tmp_path / "out", Options(backend="python"))
    copied = tmp_path / "out" / "digits" / "1" / "python"
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from slimline import plugins, preprocess\nfrom slimline.predictor import Predictor\n"
        "predictor = Predictor(sys.argv[2], 'onnxruntime', 1)\n"
        "for op in ('decode_image', 'resize', 'normalize'): plugins.find('preprocess', op, trust=())\n"
        "ours = {n: m.__file__ for n, m in sys.modules.items() if n.partition('.')[0] == 'slimline'}\n"
        "assert all(Path(f).is_relative_to(sys.argv[1]) for f in ours.values()), ours\n"
        "assert not {'torch', 'pydantic', 'yaml', 'typer'} & sys.modules.keys()\n"
    )
    export = tmp_path / "out" / "digits" / "1" / "export"
    subprocess.run([sys.executable, "-c", code, str(copied), str(export)], check=True, env=os.environ | {"PWD": "/"})
    names = {path.relative_to(copied / "slimline").as_posix() for path in copied.rglob("*.py")}
    assert "model_repository/backend.py" in names
    assert not any(name.startswith(("methods", "training", "tasks", "cli")) for name in names)
    assert BACKEND not in sys.modules


@pytest.mark.parametrize(
    ("options", "formats", "message"),
    [
        pytest.param({"backend": "python", "device": "gpu"}, {}, "runs ONNX Runtime on CPUs", id="python on a GPU"),
        pytest.param({"backend": "tensorrt", "device": "cpu"}, {}, "needs --device gpu", id="tensorrt on a CPU"),
        pytest.param(
            {"backend": "tensorrt", "device": "gpu"}, {}, "has no engine: add tensorrt to params.yaml", id="no engine"
        ),
        pytest.param(
            {"backend": "tensorrt", "device": "gpu"}, {"tensorrt": ENGINE | {"library": "tensorrt-rtx 1.7.1"}},
            r"model\.engine: built by tensorrt-rtx 1\.7\.1, Triton runs full TensorRT's alone", id="RTX engine",
        ),
        pytest.param({"name": "../x"}, {}, r"--name \.\./x: letters", id="name"),
        pytest.param({"served": (1, 3)}, {}, "--versions 3: there are 1 releases", id="versions"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(
    measured: Measured, tmp_path: Path, options: dict[str, Any], formats: dict[str, Any], message: str
) -> None:
    with pytest.raises(ReleaseError, match=message) as caught:
        write([measured(formats=formats)], tmp_path / "out", Options(**options))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_full_tensorrt_engine_is_a_plan_within_its_profile(measured: Measured, tmp_path: Path, parsed: Any) -> None:
    release = measured({1: 0.1, 4: 0.2, 8: 0.3}, formats={"tensorrt": ENGINE})
    write([release], tmp_path / "out", Options(backend="tensorrt", device="gpu"))
    config = parsed(tmp_path / "out" / "digits" / "config.pbtxt")
    assert (config.backend, config.max_batch_size) == ("tensorrt", 6)
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    assert config.instance_group[0].kind == 1  # KIND_GPU
    assert (tmp_path / "out" / "digits" / "1" / "model.plan").read_bytes() == b"made elsewhere"


@pytest.mark.parametrize(
    ("formats", "file", "accelerators"),
    [
        ({"onnx-trt": {"file": "model.trt.onnx"}, "onnx-fp16": {"file": "model.fp16.onnx"}}, b"made", ["tensorrt"]),
        ({"onnx-fp16": {"file": "model.fp16.onnx"}}, b"made", []),
        ({}, None, []),
    ],
    ids=["onnx-trt first", "onnx-fp16", "floats"],
)
def test_a_gpu_gets_the_file_made_for_it(
    measured: Measured,
    tmp_path: Path,
    parsed: Any,
    formats: dict[str, Any],
    file: bytes | None,
    accelerators: list[str],
) -> None:
    release = measured(formats=formats)
    write([release], tmp_path / "out", Options(device="gpu"))
    config = parsed(tmp_path / "out" / "digits" / "config.pbtxt")
    content = (tmp_path / "out" / "digits" / "1" / "model.onnx").read_bytes()
    assert content[:4] == (file or (release / "chain" / "distill" / "model.onnx").read_bytes()[:4])
    found = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert [each.name for each in found] == accelerators
    assert "intra_op_thread_count" not in config.parameters


@pytest.mark.parametrize("has_onnx", [True, False], ids=["by its nodes", "by its facts, without onnx"])
def test_int8_for_cpus_is_refused_on_a_gpu(
    measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_onnx: bool
) -> None:
    affine = convolution(zero=np.uint8(128)).SerializeToString()
    release = measured(model=affine, variant="int8")
    reason = "zero point 128" if has_onnx else "its variant is int8"
    if not has_onnx:
        for module in ("slimline.lint.graph", "slimline.lint.tensorrt"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ReleaseError, match=rf"model\.onnx: .*{reason}: .*add onnx-trt or onnx-fp16 to params\.yaml"):
        write([release], tmp_path / "out", Options(device="gpu"))
    write([release], tmp_path / "out", Options(device="cpu"))


def test_versions_share_their_face(
    two_releases: tuple[Path, Path], resealed: Callable[..., Path], tmp_path: Path
) -> None:
    def relabel(folder: Path, _: dict[str, Any]) -> None:
        path = folder / "chain" / "distill" / "signature.json"
        manifest.write_json(path, manifest.read_json(path) | {"labels": [*"abcdefghij"]})

    other = resealed(two_releases[0], tmp_path / "other", relabel)
    with pytest.raises(ReleaseError, match=r"other: its labels differ from those of .*one"):
        write([two_releases[0], other], tmp_path / "out", Options())
    with pytest.raises(ReleaseError, match="it is version 1 already"):
        write([two_releases[0], two_releases[0]], tmp_path / "out", Options())


def test_versions_may_have_vocabularies_of_their_own(
    text_release: Path, resealed: Callable[..., Path], tmp_path: Path
) -> None:
    other = without_ranges(text_release, tmp_path / "other", resealed)
    assert any("version 2" in line for line in write([text_release, other], tmp_path / "out", Options()))


def test_a_damaged_release_is_refused(two_releases: tuple[Path, Path], tmp_path: Path) -> None:
    release = shutil.copytree(two_releases[0], tmp_path / "release")
    (release / "chain" / "distill" / "model.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"model\.onnx: 0 bytes"):
        write([release], tmp_path / "out", Options())
    with pytest.raises(ReleaseError, match=r"no release: it holds no card\.json"):
        write([tmp_path], tmp_path / "out", Options())


def test_without_preprocessing_there_is_no_ensemble(
    two_releases: tuple[Path, Path], resealed: Callable[..., Path], tmp_path: Path
) -> None:
    def strip(folder: Path, _: dict[str, Any]) -> None:
        (folder / "chain" / "distill" / "preprocess.json").unlink()

    release = resealed(two_releases[0], tmp_path / "release", strip)
    said = write([release], tmp_path / "out", Options())
    assert "no ensemble for raw values" in said[-1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".gitignore", "digits", "manifest.json"]


def test_the_command(two_releases: tuple[Path, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "slimline", "triton", *map(str, two_releases), "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, "--backend", "python"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"version 2: {manifest.digest(two_releases[1])}" in done.stdout
    done = subprocess.run([*command, "--versions", "newest"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: --versions newest: all, latest, or numbers such as 1,3\n")
