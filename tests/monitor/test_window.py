"""The history keeps within its bounds, and a window of it is one page that needs nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from slimline.cli.monitoring import app
from slimline.errors import DataError
from slimline.events import EventStore
from slimline.monitor import history, window
from slimline.monitor.follower import Follower
from slimline.monitor.history import History
from slimline.monitor.process import Clock, Process
from slimline.monitor.releases import Releases
from slimline.monitor.signal import Sample
from slimline.monitor.standing import Standing, State
from tests.monitor.conftest import Send

OWN = ("sha256:" + "a" * 64, "main")


def test_the_history_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST", 100)
    kept = History(tmp_path)
    for minute in range(1000):
        kept.append(minute * 60.0, OWN, minute, [], [Sample("slimline_drift_score", 0.1, {"feature": "a"})])
    lines = list(history.read(tmp_path))
    assert 50 <= len(lines) <= 100
    assert lines[-1]["time"] == 999 * 60
    assert lines[-1]["samples"] == {"slimline_drift_score": {"a": 0.1}}


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    History(tmp_path).append(1.0, OWN, 1, [Standing("accuracy", *OWN, State.OK, "", 0.0, 1)], [])
    with (tmp_path / history.FILE).open("a") as file:
        file.write('{"time": 2.0, "rev')
    assert len(list(history.read(tmp_path))) == 1


@pytest.fixture
def seen(url: str, send: Send, watched_releases: tuple[Path, Path], tmp_path: Path) -> Path:
    """The state folder of a monitor that saw half an hour, the last third of it bad."""
    folder = tmp_path / "state"
    folder.mkdir()
    now = [1e9]
    clock = Clock(lambda: now[0], lambda: now[0])
    releases = Releases(None, watched_releases)
    process = Process(Follower(EventStore.open(url), releases, folder, None), folder, clock=clock)
    with EventStore.open(url) as store:
        for minute in range(30):
            send(store, 60, start=now[0], pace=1.0, wrong=0.5 if minute >= 20 else 0.0, seed=minute)
            now[0] += 60
            process.poll()
    return folder


def test_a_window_is_one_page(seen: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["window", str(page), "--state", str(seen)])
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "<svg" in text
    assert "2001-09-09 01:47:40Z to 2001-09-09 02:16:41Z" in text
    assert re.search(r"accuracy of [0-9a-f]{12} as main", text)
    assert not re.findall(r'(?:src|href)="(?!#)', text), "it needs nothing else"


def test_a_browser_draws_it(seen: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium isn't installed: apt-get install chromium")
    page = tmp_path / "page.html"
    window.write(seen, page, float("-inf"), float("inf"))
    probe = (
        "<script>onload = () => { const lines = [...document.querySelectorAll('svg path')]; document.title = "
        "lines.filter(line => line.getBoundingClientRect().width > 0).length + ' lines drawn' }</script>"
    )
    page.write_text(page.read_text().replace("</html>", f"{probe}</html>"))
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--user-data-dir={tmp_path / 'own'}",
        page.as_uri(),
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    drawn = re.search(r"<title>(\d+) lines drawn", shown)
    assert drawn, shown[:500]
    assert int(drawn[1]) > 20


def test_a_window_of_nothing_is_one_line(seen: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing from 2001-09-09 01:46:40Z"):
        window.write(seen, tmp_path / "page.html", 1e9, 1e9 + 1)
