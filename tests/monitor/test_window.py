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
from slimline.monitor import history, window, window_picture
from slimline.monitor.alarm_log import AlarmLog
from slimline.monitor.follower import Follower
from slimline.monitor.history import History
from slimline.monitor.process import Clock, Process
from slimline.monitor.releases import Releases
from slimline.monitor.signal import Sample
from slimline.monitor.standing import Standing, State
from slimline.monitor.window_picture import Mark
from tests.monitor.conftest import Send

NAN = float("nan")
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


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A day of two releases, a canary beside them, two alarms within minutes and more drift than can be shown."""
    folder = tmp_path / "crowded"
    folder.mkdir()
    kept, log = History(folder), AlarmLog(folder)
    for minute in range(0, 1440, 5):
        if 400 <= minute < 520:
            continue  # the monitor was down
        holding = {}
        for digit, variant, seen in (("a", "main", minute < 900), ("c", "main", minute >= 900), ("e", "canary", True)):
            if not seen or (variant == "canary" and not 700 <= minute < 1100):
                continue
            own, bad = (f"sha256:{digit * 64}", variant), digit == "c" and minute > 960
            regressed = minute > {"a": 1440, "c": 1001, "e": 1006}[digit]
            right, state = 0.84 if bad else 0.9, State.REGRESSED if regressed else State.OK
            standings = [
                Standing(signal, *own, state, "it fell", minute, 1, right, (right - 0.02, right + 0.02), 0.88)
                for signal in ("accuracy", "agreement")
            ]
            names = ("answers", "confidence", "teacher.projection.0", "input.image.roughness", "input.image.mean", "x")
            drift = 0.3 if bad else 0.05
            samples = [
                *(Sample("slimline_drift_score", drift + place / 50, {"feature": n}) for place, n in enumerate(names)),
                *(Sample("slimline_latency_seconds", float(q) / 99, {"quantile": q}) for q in ("0.5", "0.95", "0.99")),
            ]
            kept.append(1e9 + 60 * minute, own, 600 * minute, standings, samples)
            holding |= {(each.signal, *own): each for each in standings}
        log.settle(holding, 1e9 + 60 * minute, lambda _: "it answers nobody any more")
    return folder


SCRIPT = """<script>onload = () => {
  const drawing = document.querySelector('svg'), all = drawing.getBoundingClientRect(), mistakes = []
  const texts = [...drawing.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()])
  texts.forEach(([said, own], place) => {
    if (own.left < all.left - 1 || own.right > all.right + 1 || own.top < all.top - 1 || own.bottom > all.bottom + 1)
      mistakes.push(`${said} is cut off`)
    if (own.height < 9) mistakes.push(`${said} is ${own.height} pixels high`)
    texts.slice(0, place).forEach(([other, its]) => {
      if (own.left < its.right - 1 && its.left < own.right - 1 && own.top < its.bottom - 2 && its.top < own.bottom - 2)
        mistakes.push(`${said} covers ${other}`)
    })
  })
  const drawn = [...drawing.querySelectorAll('path, use')].filter(line => line.getBoundingClientRect().width > 0)
  document.title = `${drawn.length} drawn, ${texts.length} texts: ${mistakes.join('; ')}`
}</script>"""


@pytest.mark.parametrize(
    ("since", "width"),
    [(float("-inf"), 1400), (1e9 + 60 * 1200, 1400), (float("-inf"), 500)],
    ids=["a day", "after the alarms began", "on a phone"],
)
def test_every_text_can_be_read_in_a_browser(crowded: Path, tmp_path: Path, since: float, width: int) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium isn't installed: apt-get install chromium")
    page = tmp_path / "page.html"
    window.write(crowded, page, since, float("inf"))
    page.write_text(page.read_text().replace("</html>", f"{SCRIPT}</html>"))
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--user-data-dir={tmp_path / 'own'}",
        f"--window-size={width},900", page.as_uri(),
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    found = re.search(r"<title>(\d+) drawn, (\d+) texts: (.*)</title>", shown)
    assert found, shown[:500]
    assert int(found[1]) > 20
    assert int(found[2]) > 20
    assert found[3] == ""


@pytest.mark.parametrize(
    ("times", "shown"),
    [
        ([0], [(0, "1")]),
        ([0, 3600], [(0, "1"), (3600, "2")]),
        ([0, 100], [(0, "1, 2")]),
        ([0, 100, 200, 9000], [(0, "1\N{EN DASH}3"), (9000, "4")]),
        ([-5000, 9000], [(0, "1"), (9000, "2")]),
    ],
    ids=["one", "far apart", "close", "many", "before the window"],
)
def test_numbers_of_alarms_never_cover_each_other(times: list[float], shown: list[tuple[float, str]]) -> None:
    marks = [Mark(time, None, number, "accuracy") for number, time in enumerate(times, 1)]
    assert window_picture.numbered(marks, 0.0, 36000.0) == shown


def test_releases_that_answer_side_by_side_share_a_curve_of_drift(crowded: Path) -> None:
    """Or it jumps between them from line to line."""
    moments = window_picture.drifts(list(history.read(crowded)))
    times = [each["time"] for each in moments]
    assert times == sorted(set(times))
    both = next(each for each in moments if each["time"] == 1e9 + 60 * 1000)
    assert both["samples"]["slimline_drift_score"]["answers"] == 0.3, "the canary's is 0.05"


@pytest.mark.parametrize(
    ("values", "dots"),
    [([1.0], [0]), ([1.0, NAN], [0]), ([1.0, 2.0], []), ([1.0, 2.0, NAN, 3.0, NAN, 4.0], [3, 5]), ([NAN], [])],
)
def test_a_value_that_no_line_leads_to_is_a_dot(values: list[float], dots: list[int]) -> None:
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    window_picture._plot(ax, range(len(values)), values)
    (line,) = ax.lines
    assert (line.get_marker() == "o", line.get_markevery()) == (bool(dots), dots)


def test_a_window_of_one_line_is_ten_seconds_long_and_labelled_in_seconds(crowded: Path) -> None:
    lines = list(history.read(crowded, 1e9, 1e9 + 1))
    assert len(lines) == 1
    svg = window_picture.draw(lines, [], 1e9, 1e9 + 1).svg
    labels = re.findall(r">(\d\d:\d\d:\d\d)<", svg)
    assert (labels[0], labels[-1]) == ("01:46:40", "01:46:50")
    assert len(set(labels)) == len(labels) > 4
    assert "2001-Sep-09<" in svg


def test_seconds_around_a_minute_are_labelled_alike(tmp_path: Path) -> None:
    kept = History(tmp_path)
    for second in range(90):
        kept.append(1e9 + second, OWN, second, [], [])
    svg = window_picture.draw(list(history.read(tmp_path)), [], 1e9, 1e9 + 90).svg
    assert {"01:46:50", "01:47:00", "01:47:10"} <= set(re.findall(r">(\d\d:\d\d:\d\d)<", svg))


def test_a_window_without_a_latency_has_a_picture(tmp_path: Path) -> None:
    for minute in range(3):
        History(tmp_path).append(1e9 + 60 * minute, OWN, minute, [], [])
    assert "rows a second" in window_picture.draw(list(history.read(tmp_path)), [], 1e9, 1e9 + 120).svg


def test_a_window_of_nothing_is_one_line(seen: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing from 2001-09-09 01:46:40Z"):
        window.write(seen, tmp_path / "page.html", 1e9, 1e9 + 1)
