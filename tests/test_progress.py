"""Bars name the step at hand on a terminal; a log has a line now and then."""

import io
import re
import time
from contextlib import redirect_stderr

import pytest

from slimline import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def last(self) -> str:
        """What the bar shows now."""
        return self.getvalue().rpartition("\r")[2]


def test_a_step_is_named_as_it_begins_and_counted_as_it_ends() -> None:
    with redirect_stderr(terminal := Terminal()), progress.steps("export prune", 2) as begin:
        begin("onnx")
        assert "export prune" in terminal.last
        assert "0/2" in terminal.last
        assert "onnx" in terminal.last
        begin("answers")
        assert "1/2" in terminal.last
        assert "answers" in terminal.last
    assert "2/2" in terminal.last


def test_a_step_that_fails_is_not_counted() -> None:
    terminal = Terminal()
    with pytest.raises(ZeroDivisionError), redirect_stderr(terminal), progress.steps("export prune", 2) as begin:
        list(map(lambda number: begin(str(1 // number)), (1, 0)))  # noqa: C417  (one statement that fails halfway)
    assert "0/2" in terminal.getvalue()
    assert "1/2" not in terminal.getvalue()


def test_rounds_are_shown_while_they_last() -> None:
    with redirect_stderr(terminal := Terminal()), progress.rounds("latency of 3 models", 4) as done:
        assert "latency of 3 models" in terminal.last
        assert "0/4" in terminal.last
        for _ in range(4):
            done()
    assert not terminal.last.strip()


def test_a_log_says_now_and_then_what_is_being_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.05)
    with progress.steps("ranges", 4) as begin:
        begin("static")
        time.sleep(0.12)
        begin("time")
        with progress.rounds("times of models", 9) as done:
            done()
            time.sleep(0.12)
        for _ in progress.each("ab", "peak memory", 2, "stage"):
            time.sleep(0.12)
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"ranges: step 1 of 4, static \(\d+ s\)", lines[0])
    assert sum(line.startswith("times of models: 1 of 9 rounds done (") for line in lines) >= 1
    assert sum(line.startswith("peak memory: 1 of 2 stages done (") for line in lines) >= 1
    assert not any("step 2" in line for line in lines), "the inner one speaks"
    time.sleep(0.12)
    assert capsys.readouterr().out == "", "nothing once it is over"


def test_a_terminal_has_the_bar_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.02)
    with redirect_stderr(Terminal()), progress.rounds("latency", 2):
        time.sleep(0.1)
    assert capsys.readouterr().out == ""


def test_a_quick_measurement_leaves_no_line(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.steps("export prune", 1) as begin, progress.rounds("latency", 1) as done:
        begin("onnx")
        done()
    assert capfd.readouterr() == ("", "")
