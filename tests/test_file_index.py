from __future__ import annotations

import os
from pathlib import Path

import pytest

from slimline.file_index import FileIndex


def length(path: Path) -> int:
    """What the tests compute of a file."""
    return len(path.read_text())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """An index of one file, saved; ``tmp_path / "also"`` was seen too."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("abc")
    (tmp_path / "also").write_text("x")
    index = FileIndex(tmp_path / "index.json")
    assert index.facts(tmp_path / "folder" / "a.txt", length) == 3
    index.save(also=[tmp_path / "also"])
    return tmp_path / "index.json"


def touch(path: Path) -> None:
    """Give a file another time of change."""
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


def test_an_unchanged_file_is_not_read_again(saved: Path, tmp_path: Path) -> None:
    def never(_path: Path) -> int:
        raise AssertionError

    never.__name__ = "length"
    assert FileIndex(saved).facts(tmp_path / "folder" / "a.txt", never) == 3


def test_a_changed_file_is_computed_anew(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "folder" / "a.txt").write_text("abcd")
    assert FileIndex(saved).facts(tmp_path / "folder" / "a.txt", length) == 4


def test_it_is_current_until_something_it_saw_changes(saved: Path, tmp_path: Path) -> None:
    assert FileIndex(saved).is_current([tmp_path / "also"])
    touch(tmp_path / "also")
    assert not FileIndex(saved).is_current([tmp_path / "also"])


@pytest.mark.parametrize("change", ["edit", "remove", "add beside"])
def test_files_and_their_folders_count(saved: Path, tmp_path: Path, change: str) -> None:
    path = tmp_path / "folder" / "a.txt"
    if change == "edit":
        touch(path)
    elif change == "remove":
        path.unlink()
    else:
        (tmp_path / "folder" / "b.txt").write_text("")
    assert not FileIndex(saved).is_current([])


def test_a_path_never_seen_is_not_current(saved: Path, tmp_path: Path) -> None:
    assert not FileIndex(saved).is_current([tmp_path / "another environment"])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"facts": {}}'])
def test_a_damaged_index_costs_time_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    (tmp_path / "a.txt").write_text("abc")
    index = FileIndex(tmp_path / "index.json")
    assert not index.is_current([])
    assert index.facts(tmp_path / "a.txt", length) == 3
