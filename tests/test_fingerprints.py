"""The code that a stage runs: which modules and files count, and what of them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from slimline import pipeline, plugins, source_code
from slimline.errors import ParamsError
from slimline.file_index import FileIndex

CHAIN = ["teacher", "distill", "prune", "quantize", "factorize"]
SOURCE = '''"""Module text."""

import json  # why


class Thing:
    """What it is."""

    def answer(self, a: int) -> int:
        """Return the answer."""
        text = """# not a comment"""
        return a + len(text)


def short(): "one line"; return 1
'''


@pytest.mark.parametrize(
    "edited",
    [
        pytest.param(SOURCE.replace("# why", "# another reason"), id="comment"),
        pytest.param(SOURCE.replace("  # why", ""), id="no comment"),
        pytest.param(SOURCE.replace("Module text.", "Other text, on\n\ntwo lines."), id="module docstring"),
        pytest.param(SOURCE.replace("What it is.", "What it was."), id="class docstring"),
        pytest.param(SOURCE.replace('        """Return the answer."""\n', ""), id="no docstring"),
        pytest.param(SOURCE.replace('"one line"', '"line one"'), id="docstring in a line of code"),
        pytest.param(SOURCE.replace("\n\n\n", "\n\n\n\n\n"), id="blank lines"),
        pytest.param(SOURCE.replace("import json", "# first\nimport json"), id="comment line"),
    ],
)
def test_words_about_code_do_not_change_its_hash(edited: str) -> None:
    assert edited != SOURCE
    assert source_code._code_hash(edited.encode()) == source_code._code_hash(SOURCE.encode())


@pytest.mark.parametrize(
    "edited",
    [
        pytest.param(SOURCE.replace("a + len", "a - len"), id="operator"),
        pytest.param(SOURCE.replace("# not a comment", "# still none"), id="string with a hash"),
        pytest.param(SOURCE.replace("import json", "import csv"), id="import"),
        pytest.param(SOURCE.replace("return 1", "return 2"), id="code beside a docstring"),
        pytest.param(SOURCE.replace("class Thing", "class Other"), id="name"),
    ],
)
def test_code_changes_the_hash(edited: str) -> None:
    assert edited != SOURCE
    assert source_code._code_hash(edited.encode()) != source_code._code_hash(SOURCE.encode())


FINGERPRINTS = """
import json, sys
from slimline import pipeline
document = json.loads(sys.argv[1])
prints = {stage: pipeline.fingerprint(document, stage) for stage in [*pipeline.stages(document), *pipeline.MEASURES]}
heavy = {"torch", "numpy", "onnxruntime"} & sys.modules.keys()
assert not heavy, heavy
assert pipeline.__file__.startswith(sys.argv[2]), pipeline.__file__
print(json.dumps(prints))
"""
Prints = dict[str, dict[str, str]]


def prints(folder: Path, document: dict[str, Any]) -> Prints:
    """Return the fingerprints of every stage, computed by the copy in ``folder`` in a fresh process."""
    command = [sys.executable, "-B", "-c", FINGERPRINTS, json.dumps(document), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    done = subprocess.run(command, check=True, cwd=folder, env=environment, capture_output=True, text=True)
    found: Prints = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def copied(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and the stage scripts that may be edited."""
    folder = tmp_path_factory.mktemp("copied")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(project / "src" / "slimline", folder / "src" / "slimline", ignore=ignore)
    shutil.copytree(project / "stages", folder / "stages", ignore=ignore)
    shutil.copytree(project / "docs" / "runbooks", folder / "docs" / "runbooks")
    return folder


@pytest.fixture(scope="module")
def untouched(copied: Path, _document: dict[str, Any]) -> Prints:
    """The fingerprints of the copy before any edit."""
    return prints(copied, _document)


@pytest.fixture
def after(copied: Path, untouched: Prints, document: dict[str, Any]) -> Callable[[str, str], set[str]]:
    """Return the stages whose fingerprint changes while a file of the copy has a line more."""

    def edit(path: str, line: str) -> set[str]:
        edited = copied / path
        before = edited.read_bytes() if edited.exists() else None
        edited.parent.mkdir(parents=True, exist_ok=True)
        edited.write_bytes((before or b"") + f"\n{line}\n".encode())
        found = prints(copied, document)
        if before is None:
            edited.unlink()
        else:
            edited.write_bytes(before)
        return {stage for stage in found if found[stage] != untouched[stage]}

    return edit


def test_a_method_is_in_the_fingerprints_of_its_stage_and_what_follows(
    after: Callable[[str, str], set[str]], untouched: Prints
) -> None:
    found = after("src/slimline/methods/structured.py", "EXTRA = 1")
    assert found >= {"prune", "quantize", "factorize"}
    assert not found & {"teacher", "distill"}
    assert "slimline.methods.structured" in untouched["prune"]


def test_a_comment_is_in_no_fingerprint(after: Callable[[str, str], set[str]]) -> None:
    assert after("src/slimline/methods/structured.py", "# EXTRA = 1") == set()


def test_what_a_method_imports_counts_with_it(after: Callable[[str, str], set[str]]) -> None:
    found = after("src/slimline/factorization/plan.py", "EXTRA = 1")
    assert "factorize" in found
    assert not found & {"teacher", "distill", "prune", "quantize"}


def test_a_script_counts_for_its_own_stage_alone(after: Callable[[str, str], set[str]]) -> None:
    assert after("stages/quantize.py", "EXTRA = 1") == {"quantize"}


def test_the_loop_counts_for_every_stage_that_trains(after: Callable[[str, str], set[str]]) -> None:
    assert after("src/slimline/training/loop.py", "EXTRA = 1") >= set(CHAIN)


def test_runbooks_count_for_the_release_that_carries_them(after: Callable[[str, str], set[str]]) -> None:
    found = after("docs/runbooks/SlimlineDrift.md", "One line more.")
    assert "release" in found
    assert not found & {*CHAIN, "latency", "benchmark"}


def test_data_of_the_task_counts(after: Callable[[str, str], set[str]]) -> None:
    assert after("data/digits/rows.csv", "1,2") >= set(CHAIN)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_files_that_a_table_names_count(copied: Path, document: dict[str, Any], suffix: str) -> None:
    folder = copied / f"own{suffix}"
    (folder / "pictures").mkdir(parents=True)
    for name in ("a.png", "b.png", "not listed.png"):
        (folder / "pictures" / name).write_bytes(name.encode())
    table, paths = folder / f"list{suffix}", ["pictures/a.png", "pictures/b.png", "pictures/not there.png"]
    if suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({"path": paths, "label": ["x"] * 3}), table)
    elif suffix == ".jsonl":
        table.write_text("".join(json.dumps({"path": each, "label": "x"}) + "\n" for each in paths))
    else:
        table.write_text("path,label\n" + "".join(f"{each},x\n" for each in paths))
    document["task"]["args"] = {"data": str(table.relative_to(copied))}
    index = FileIndex()

    def seen() -> dict[str, str]:
        with chdir(copied):
            return pipeline.fingerprint(document, "distill", index=index)

    before = seen()
    named = {str(folder.relative_to(copied) / "pictures" / name): None for name in ("a.png", "b.png")}
    assert named.keys() <= before.keys()
    assert not any("not" in Path(name).name for name in before)
    (folder / "pictures" / "b.png").write_bytes(b"another picture")
    after = seen()
    assert {name for name in after if after[name] != before.get(name)} == {list(named)[1]}
    if suffix != ".parquet":
        prints(copied, document)  # nothing heavy is imported


def test_a_table_that_cannot_be_read_names_no_files(copied: Path, document: dict[str, Any]) -> None:
    (copied / "damaged.parquet").write_bytes(b"no table")
    document["task"]["args"] = {"data": "damaged.parquet"}
    with chdir(copied):
        assert "damaged.parquet" in pipeline.fingerprint(document, "distill")


@pytest.mark.parametrize(
    ("loss", "names"),
    [
        (None, ["soft-targets"]),
        ({"name": "soft", "temperature": 2}, ["soft"]),
        ([{"name": "hard"}, {"name": "hint", "layers": {"a": "b"}}], ["hard", "hint"]),
    ],
    ids=["default", "one", "several"],
)
def test_every_loss_counts(document: dict[str, Any], loss: Any, names: list[str]) -> None:
    document["distill"]["loss"] = loss
    document["prune"]["recovery"] = {**document["prune"]["recovery"], "loss": loss}
    modules = {plugins.locate("losses", name).partition(":")[0] for name in names}
    for stage in ("distill", "prune"):
        assert pipeline.code(document, stage)["losses"] == names
        assert modules <= pipeline.fingerprint(document, stage).keys()
    assert pipeline.code(document, "teacher")["losses"] == ["soft-targets"]


def test_dropping_layers_counts_where_blocks_are_kept(document: dict[str, Any]) -> None:
    document["distill"] |= {"model": None, "keep": {"stages.0": []}}
    for stage in ("distill", "quantize"):
        assert "drop-layers" in pipeline.code(document, stage)["methods"]
    assert "drop-layers" not in pipeline.code(document, "teacher")["methods"]


def test_an_unknown_plug_in_is_named_with_its_stage(document: dict[str, Any]) -> None:
    document["prune"]["methods"][0]["name"] = "structred"
    with pytest.raises(ParamsError, match=r"params.yaml: prune: no plug-in 'structred'"):
        pipeline.fingerprint(document, "prune")


def test_what_a_foreign_task_names_is_in_its_fingerprint(document: dict[str, Any]) -> None:
    document["task"], document["teacher"]["model"] = {"name": "wine"}, {"name": "mlp"}
    document["distill"]["model"] = {"name": "mlp"}
    found = pipeline.fingerprint(document, "teacher", Path("no scripts here"))
    assert {"slimline_wine.task", "slimline_wine.metric", "slimline_wine.preprocess"} <= found.keys()


def test_the_packages_around_a_module_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing a module runs them, and they may read the files beside them."""
    package = tmp_path / "around"
    package.mkdir()
    for name in ("__init__.py", "method.py"):
        (package / name).write_text("x = 1\n")
    (package / "table.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    found = pipeline.closure(["around.method"], {"around"}, FileIndex())
    assert found.keys() == {"around", "around.method", "around/table.json"}
    assert source_code.sources(["around.method"], {"around"}).keys() == {"around", "around.method"}


def test_methods_that_train_before_count_with_the_stage(document: dict[str, Any]) -> None:
    document["prune"]["before"] = {"epochs": 1, "lr": 0.1, "methods": [{"name": "sparsify"}]}
    assert pipeline.code(document, "prune")["methods"] == ["sparsify", "structured"]
    assert "slimline.methods.sparsify" in pipeline.fingerprint(document, "prune")


def test_a_format_with_keys_is_found_by_its_name(document: dict[str, Any]) -> None:
    document["export"]["formats"] = ["onnx", {"name": "tensorrt", "compute": [86]}]
    assert pipeline.code(document, "export@teacher")["exporters"] == ["onnx", "tensorrt"]
    assert "slimline.export.signed" in pipeline.fingerprint(document, "export@teacher")
