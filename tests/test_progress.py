"""Bars name the step at hand on a terminal; logs stay empty."""

import io

import pytest

from slimline import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    return shown


def test_a_step_is_named_as_it_begins_and_counted_as_it_ends(terminal: Terminal) -> None:
    with progress.steps("export prune", 2) as begin:
        begin("onnx")
        assert "export prune" in terminal.getvalue()
        assert "0/2" in terminal.getvalue().rpartition("\r")[2]
        assert "onnx" in terminal.getvalue().rpartition("\r")[2]
        begin("answers")
        assert "1/2" in terminal.getvalue().rpartition("\r")[2]
    assert "2/2" in terminal.getvalue()


def test_a_step_that_fails_is_not_counted(terminal: Terminal) -> None:
    with pytest.raises(ZeroDivisionError), progress.steps("export prune", 1) as begin:
        begin(str(1 // 0))
    assert "1/1" not in terminal.getvalue()


def test_rounds_are_shown_while_they_last(terminal: Terminal) -> None:
    with progress.rounds("latency of 3 models", 4) as done:
        assert "latency of 3 models" in terminal.getvalue()
        done()
    assert "0/4" in terminal.getvalue()


def test_a_log_gets_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.steps("export prune", 1) as begin, progress.rounds("latency", 1) as done:
        begin("onnx")
        done()
    assert capfd.readouterr() == ("", "")
