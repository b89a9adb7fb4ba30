from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimline import manifest
from slimline.errors import ArtifactError, DataError

json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A sealed directory with a file in a folder."""
    with manifest.sealed(tmp_path / "made") as scratch:
        (scratch / "a.txt").write_text("alpha")
        (scratch / "inner").mkdir()
        (scratch / "inner" / "b.bin").write_bytes(b"\x00\x01\x02")
    return tmp_path / "made"


def rewrite(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a directory's manifest by hand."""
    path = directory / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@given(json_data)
def test_canonical_json_is_stable_and_loses_nothing(document: Any) -> None:
    text = manifest.canonical(document)
    assert json.loads(text) == document
    assert manifest.canonical(json.loads(text)) == text


def test_canonical_json_ignores_the_order_of_keys() -> None:
    assert (
        manifest.canonical({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode() == manifest.canonical({"a": "é", "b": 1})
    )


def test_canonical_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        manifest.canonical(float("nan"))


def test_a_sealed_directory_lists_every_file(directory: Path) -> None:
    listed = json.loads((directory / "manifest.json").read_text())
    assert listed == {
        "format": 1,
        "files": {
            "a.txt": {"bytes": 5, "sha256": hashlib.sha256(b"alpha").hexdigest()},
            "inner/b.bin": {"bytes": 3, "sha256": hashlib.sha256(b"\x00\x01\x02").hexdigest()},
        },
    }


def test_the_digest_is_the_sha256_of_the_canonical_manifest(directory: Path) -> None:
    document = json.loads((directory / "manifest.json").read_text())
    compact = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    assert manifest.digest(directory) == "sha256:" + hashlib.sha256(compact).hexdigest()
    assert manifest.verify(directory) == manifest.digest(directory)


def test_the_digest_does_not_depend_on_the_place_or_the_manifests_layout(directory: Path) -> None:
    before = manifest.digest(directory)
    rewrite(directory, lambda _: None)
    moved = directory.rename(directory.with_name("moved"))
    assert manifest.digest(moved) == before


def write_half(folder: Path, error: BaseException) -> None:
    (folder / "a.txt").write_text("half of")
    raise error


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_an_error_in_the_block_leaves_the_old_directory(directory: Path, error: BaseException) -> None:
    before = manifest.verify(directory)
    with pytest.raises(type(error)), manifest.sealed(directory) as scratch:
        write_half(scratch, error)
    assert manifest.verify(directory) == before
    assert [path.name for path in directory.parent.iterdir()] == ["made"]


def test_an_error_in_the_block_makes_no_directory_where_there_was_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), manifest.sealed(tmp_path / "made") as scratch:
        write_half(scratch, ValueError("broken"))
    assert list(tmp_path.iterdir()) == []


def test_a_new_directory_replaces_the_old_one_whole(directory: Path) -> None:
    with manifest.sealed(directory) as scratch:
        (scratch / "c.txt").write_text("new")
        assert (directory / "a.txt").is_file(), "the old one stands until the block ends"
    manifest.verify(directory)
    assert sorted(path.name for path in directory.iterdir()) == ["c.txt", "manifest.json"]


def test_what_a_killed_write_set_aside_is_put_back_first(directory: Path) -> None:
    before = manifest.digest(directory)
    directory.rename(directory.with_name(".made.999999.old.tmp"))  # killed between its two renames
    with pytest.raises(RuntimeError), manifest.sealed(directory):
        raise RuntimeError
    assert manifest.verify(directory) == before
    assert [path.name for path in directory.parent.iterdir()] == ["made"]


def test_what_a_killed_process_left_behind_is_swept(directory: Path) -> None:
    leftover = directory.with_name(".made.999999.tmp")
    leftover.mkdir()
    (leftover / "half").write_text("")
    with manifest.sealed(directory) as scratch:
        (scratch / "a.txt").write_text("alpha")
    assert not leftover.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_an_error_that_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ArtifactError, match="made: can't be written"), manifest.sealed(tmp_path / "made"):
            pass
    finally:
        tmp_path.chmod(0o700)


def flip(path: Path) -> None:
    path.write_bytes(b"Alpha")


def truncate(path: Path) -> None:
    path.write_bytes(b"alph")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(flip, "a.txt: wrong digest", id="changed byte"),
        pytest.param(truncate, "a.txt: 4 bytes, manifest.json says 5", id="truncated"),
        pytest.param(Path.unlink, "a.txt: missing", id="missing"),
    ],
)
def test_verify_names_the_damaged_file(directory: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(directory / "a.txt")
    with pytest.raises(ArtifactError) as caught:
        manifest.verify(directory)
    assert message in str(caught.value)
    assert str(directory) in str(caught.value)


def test_verify_names_a_file_that_nobody_listed(directory: Path) -> None:
    (directory / "inner" / "stray").write_text("")
    with pytest.raises(ArtifactError, match=r"inner/stray: not in manifest.json"):
        manifest.verify(directory)


def add_outside(document: dict[str, Any]) -> None:
    document["files"]["../outside.txt"] = {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}


def add_absolute(document: dict[str, Any]) -> None:
    document["files"]["/etc/hostname"] = {"bytes": 0, "sha256": ""}


@pytest.mark.parametrize("add", [add_outside, add_absolute], ids=["parent", "absolute"])
def test_a_listed_path_may_not_leave_the_directory(directory: Path, add: Callable[[dict[str, Any]], None]) -> None:
    (directory.parent / "outside.txt").write_text("")
    rewrite(directory, add)
    with pytest.raises(ArtifactError, match="points outside the directory"):
        manifest.verify(directory)


def test_a_newer_format_asks_for_an_upgrade(directory: Path) -> None:
    rewrite(directory, lambda document: document.update(format=2))
    with pytest.raises(ArtifactError, match=r"format 2 is newer than this Slimline reads \(1\): upgrade"):
        manifest.verify(directory)


@pytest.mark.parametrize("found", ["1", None, 0, [1]], ids=str)
def test_a_format_that_is_no_positive_number_is_refused(directory: Path, found: object) -> None:
    rewrite(directory, lambda document: document.update(format=found))
    with pytest.raises(ArtifactError, match=r"format: expected 1"):
        manifest.verify(directory)


@pytest.mark.parametrize(
    "text", ["[]", '{"format": 1}', '{"format": 1, "files": []}'], ids=["list", "no files", "files"]
)
def test_a_manifest_of_another_shape_is_refused(directory: Path, text: str) -> None:
    (directory / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest.json: no manifest"):
        manifest.verify(directory)


def test_a_directory_without_a_manifest_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest.json: missing; run 'dvc repro'"):
        manifest.verify(tmp_path)


@pytest.mark.parametrize("raw", [b"{", b"\xff\xfe"], ids=["json", "utf-8"])
def test_damaged_json_is_named(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "x.json").write_bytes(raw)
    with pytest.raises(ArtifactError, match=r"x.json: not valid JSON"):
        manifest.read_json(tmp_path / "x.json")


def test_write_json_makes_the_folder_and_leaves_no_scratch(tmp_path: Path) -> None:
    path = tmp_path / "inner" / "x.json"
    manifest.write_json(path, {"b": 1, "a": "é"})
    assert path.read_text(encoding="utf-8") == '{\n "a": "é",\n "b": 1\n}\n'
    assert list(path.parent.iterdir()) == [path]


def test_a_manifest_entry_without_its_facts_is_named(directory: Path) -> None:
    rewrite(directory, lambda document: document["files"].update({"a.txt": {}}))
    with pytest.raises(ArtifactError, match=r"manifest.json: files.a.txt: no bytes and sha256"):
        manifest.verify(directory)


def test_a_text_is_on_the_disk_before_it_takes_the_old_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renamed before its bytes are safe, a file may be empty after a power cut."""
    path = tmp_path / "x.txt"
    path.write_text("old")
    synced: list[tuple[int, str]] = []
    fsync = os.fsync

    def record(handle: int) -> None:
        fsync(handle)
        synced.append((os.fstat(handle).st_size, path.read_text()))

    monkeypatch.setattr(os, "fsync", record)
    manifest.write_text(path, "new and whole")
    assert synced == [(len("new and whole"), "old")]
    assert path.read_text() == "new and whole"


def test_every_file_of_a_sealed_directory_is_on_the_disk_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "made"
    early, late = set(), set()
    fsync = os.fsync

    def record(handle: int) -> None:
        fsync(handle)
        (late if target.exists() else early).add(os.fstat(handle).st_ino)

    monkeypatch.setattr(os, "fsync", record)
    with manifest.sealed(target) as scratch:
        (scratch / "inner").mkdir()
        (scratch / "inner" / "b.bin").write_bytes(b"\x00")
    assert {path.stat().st_ino for path in (target, *target.rglob("*"))} <= early
    assert tmp_path.stat().st_ino in late, "the rename itself"


def test_arrays_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", targets=np.arange(3), others=np.array([None]))
    with manifest.arrays(tmp_path / "a.npz") as arrays:
        assert set(arrays) == {"targets", "others"}
        assert arrays["targets"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda whole: whole[:40],
        lambda whole: whole[:60] + b"\xff" * 20 + whole[80:],
        lambda _: b"PK\x03\x04 nothing",
    ],
    ids=["empty", "cut", "other bytes", "no archive"],
)
def test_damaged_arrays_are_one_line(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, targets=np.random.default_rng(0).normal(size=100))
    path.write_bytes(damage(path.read_bytes()))
    message = r"a\.npz: can't be read \(.*\); write it again"
    with pytest.raises(DataError, match=message), manifest.arrays(path, DataError, "write it again") as arrays:
        print(arrays["targets"])


def test_an_array_that_is_not_there_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", targets=np.arange(3))
    message = r"a\.npz: can't be read \(.*output.*\); make the release again"
    with pytest.raises(ArtifactError, match=message), manifest.arrays(tmp_path / "a.npz") as arrays:
        print(arrays["output"])
