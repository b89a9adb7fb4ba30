"""Bars name the step at hand on a terminal; logs stay empty."""

import io
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


def test_a_log_gets_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.steps("export prune", 1) as begin, progress.rounds("latency", 1) as done:
        begin("onnx")
        done()
    assert capfd.readouterr() == ("", "")
