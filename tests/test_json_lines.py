"""Whatever is in an entry comes back, and what a power cut tore takes no other entry with it."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimline import json_lines, manifest
from slimline.errors import ArtifactError
from slimline.monitor import alarm_log, history
from slimline.monitor.alarm_log import AlarmLog
from slimline.monitor.history import History
from slimline.monitor.standing import Standing, State

LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\ud800"  # what str.splitlines cuts at, and half a character


@given(st.lists(st.dictionaries(st.text(max_size=3), st.text() | st.sampled_from(LINE_ENDS)), max_size=5))
def test_what_is_appended_is_read(entries: list[dict[str, str]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        for each in entries:
            json_lines.append(path, each)
        assert list(json_lines.read(path)) == entries


@pytest.mark.parametrize("torn", [b'{"n": 1', b'{"n": "\xe2\x80', b"\0\0\0\0", b"7"])
def test_a_line_that_was_torn_is_the_only_one_lost(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "log.jsonl"
    json_lines.append(path, {"n": 0})
    with path.open("ab") as file:
        file.write(torn)
    json_lines.append(path, {"n": 2}, sync=False)
    assert list(json_lines.read(path)) == [{"n": 0}, {"n": 2}]


def test_lines_of_other_alphabets_are_read_on(tmp_path: Path) -> None:
    """Alarm logs were written so."""
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"label": "a\u2028ä\x85"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert list(json_lines.read(path)) == [{"label": "a\u2028ä\x85"}]


def test_no_file_holds_no_entry(tmp_path: Path) -> None:
    assert list(json_lines.read(tmp_path / "log.jsonl")) == []


def test_a_folder_that_is_gone_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        json_lines.append(tmp_path / "gone" / "log.jsonl", {})


def test_an_alarm_on_any_label_is_open_after_a_restart(tmp_path: Path) -> None:
    own = ("sha256:a", "main")
    standing = Standing("accuracy", *own, State.REGRESSED, f"most of all {LINE_ENDS}", 1e9, 1)
    raised = AlarmLog(tmp_path).settle({("accuracy", *own): standing}, 1e9, None)
    assert list(AlarmLog(tmp_path).open.values()) == raised
    assert len(alarm_log.entries(tmp_path)) == 1


def test_a_line_of_the_history_that_was_torn_is_the_only_one_lost(tmp_path: Path) -> None:
    (tmp_path / history.FILE).write_text('{"time": 1, "revi')
    History(tmp_path).append(2.0, ("sha256:a", "main"), 1, [], [])
    assert [each["time"] for each in history.read(tmp_path)] == [2.0]


def test_a_disk_that_is_full_loses_a_line_of_the_history_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, _: str) -> None:
        raise ArtifactError(f"{path}: the disk is full")

    monkeypatch.setattr(history, "MOST", 2)
    monkeypatch.setattr(manifest, "write_text", full)
    kept = History(tmp_path)
    for second in range(3):
        kept.append(float(second), ("sha256:a", "main"), 1, [], [])
    assert "the disk is full" in caplog.text
