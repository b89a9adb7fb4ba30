from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slimline import leftovers
from slimline.own_data import row_files


def test_old_folders_go_and_one_that_another_process_removed_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = time.time() - (leftovers.KEEP_DAYS + 1) * 86400
    for name in ("gone", "old", "young"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / "old", (past, past))
    listed = Path.glob

    def removed_meanwhile(folder: Path, pattern: str) -> Iterator[Path]:
        found = sorted(listed(folder, pattern))
        (tmp_path / "gone").rmdir()
        yield from found

    monkeypatch.setattr(Path, "glob", removed_meanwhile)
    leftovers.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["young"]


def test_rows_that_another_process_finished_first_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def slower(scratch: Path, target: Path) -> Path:
        target.mkdir()
        (target / "rows").write_text("theirs")
        return rename(scratch, target)

    monkeypatch.setattr(Path, "rename", slower)
    found = row_files.cached("key", lambda scratch: (scratch / "rows").write_text("ours"), tmp_path)  # type: ignore[arg-type, return-value]
    assert (found / "rows").read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [found]
