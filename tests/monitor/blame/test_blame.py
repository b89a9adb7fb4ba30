"""Blame on real small chains with faults that were planted while building them, and on their real traffic."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from slimline.cli import app
from slimline.errors import ArtifactError, SlimlineError
from slimline.events import EventStore
from slimline.manifest import digest
from slimline.monitor.alarm import Alarm
from slimline.monitor.blame import Blame, blame, on_alarm, page, quality, replayed, window
from slimline.monitor.blame.chain import Chain, Rows
from slimline.monitor.standing import Standing, State
from tests.monitor.blame.planted import OVER_PRUNED, Traffic, Workshop, blurred, rotated

Watch = Callable[..., Blame]
SCENARIOS: dict[str, tuple[str, Traffic, str | None]] = {
    "nothing": ("good", Traffic(), None),
    "nothing, labels missing": ("good", Traffic(labelled=0), None),
    "quantize miscalibrated": ("miscalibrated", Traffic(), "accuracy"),
    "quantize miscalibrated, labels missing": ("miscalibrated", Traffic(labelled=0), "agreement"),
    "two classes over-pruned": ("over_pruned", Traffic(), "accuracy"),
    "two classes over-pruned, labels missing": ("over_pruned", Traffic(labelled=0), "agreement"),
    "quantize fails where it serves": ("elsewhere", Traffic(), "accuracy"),
    "quantize fails where it serves, labels missing": ("elsewhere", Traffic(labelled=0), "agreement"),
    "blur": ("good", Traffic(change=blurred), "accuracy"),
    "blur, labels missing": ("good", Traffic(change=blurred, labelled=0), "agreement"),
    "rotation": ("good", Traffic(change=rotated), "accuracy"),
    "label shift": ("good", Traffic(mix={1: 3.0, 8: 3.0}), None),
    "delay": ("good", Traffic(delay=0.005), "latency"),
}
EXPECTED = {
    "nothing": {"nothing"},
    "quantize miscalibrated": {"quantize"},
    "two classes over-pruned": {"prune"},
    "quantize fails where it serves": {"quantize"},
    "blur": {"data"},
    "rotation": {"data"},
    "label shift": {"nothing", "data"},  # classes that lose more may come so often that the budget is gone
    "delay": {"serving"},
}


@pytest.fixture
def watch(releases: dict[str, Path], workshop: Workshop, tmp_path: Path) -> Watch:
    """Blame a scenario's release on traffic drawn by ``seed``."""

    def run(scenario: str, seed: int = 0, rounds: int = 3, **keys: Any) -> Blame:
        name, traffic, signal = SCENARIOS[scenario]
        with traffic.write(f"sqlite:///{tmp_path}/{scenario}-{seed}.db", releases[name], workshop, seed) as store:
            return blame(releases[name], store, rounds=rounds, **{"signal": signal, **keys})

    return run


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_verdict(watch: Watch, scenario: str) -> None:
    found = watch(scenario)
    assert found.verdict in EXPECTED[scenario.partition(",")[0]], found.why


@pytest.mark.e2e  # a minute and a half
def test_the_confusion_matrix_over_seeds(watch: Watch) -> None:
    """Ten draws of traffic a scenario: at most one verdict in all of them is wrong."""
    seen: dict[str, Counter[str]] = {
        scenario: Counter(watch(scenario, seed, rounds=2 if scenario == "delay" else 0).verdict for seed in range(10))
        for scenario in SCENARIOS
    }
    print("\n" + "\n".join(f"{scenario:42}{dict(counts)}" for scenario, counts in seen.items()))
    right = sum(counts[each] for scenario, counts in seen.items() for each in EXPECTED[scenario.partition(",")[0]])
    assert right >= 10 * len(SCENARIOS) - 1


def test_a_stage_is_blamed_with_all_that_belongs_to_it(watch: Watch, miscalibrated: Path) -> None:
    found = watch("quantize miscalibrated")
    assert (found.kind, found.stage, found.revision) == ("stage", "quantize", digest(miscalibrated))
    assert found.params == {"from": "prune", "methods": [{"name": "linear"}]}
    assert found.digest == digest(miscalibrated / "chain" / "quantize")
    step = found.window[-1]
    assert step.loss is not None
    assert step.loss.low > 0.04
    assert step.agreement is not None
    assert step.agreement.value < 0.95
    assert all(each["before"] == each["label"] != each["after"] for each in found.examples)
    assert len(found.examples) == 20
    assert (found.requests, found.rows, found.labelled) == (400, 400, 400)


def test_the_classes_that_were_forgotten_come_first(watch: Watch) -> None:
    found = watch("two classes over-pruned")
    assert {each["label"] for each in found.classes[:2]} == set(map(str, OVER_PRUNED))
    assert all(each["harmed"] for each in found.classes[:2])
    assert not any(each["harmed"] for each in found.classes[2:])


def test_without_traffic_the_release_is_judged_by_itself(releases: dict[str, Path]) -> None:
    verdicts = {name: blame(each, rounds=0).verdict for name, each in releases.items()}
    assert verdicts == {
        "good": "nothing", "miscalibrated": "quantize", "over_pruned": "prune", "elsewhere": "nothing"
    }  # fmt: skip


@pytest.mark.parametrize("labels", ["", ", labels missing"], ids=["labelled", "unlabelled"])
def test_a_stage_that_fails_in_production_alone_is_found_on_the_windows_rows(watch: Watch, labels: str) -> None:
    """As int8 kernels do that another processor runs: nothing is wrong with the release's own reference rows."""
    found = watch(f"quantize fails where it serves{labels}")
    assert found.verdict == "quantize", found.why
    assert found.why.endswith("in the window, though not on the reference rows and with the same input")
    wrong = found.window[-1].agreement, found.reference[-1].agreement
    assert wrong[0]
    assert wrong[1]
    assert wrong[0].high < wrong[1].low
    assert found.examples, "rows of the window whose answer it spoiled"


def test_what_the_incumbent_lost_too_is_no_regression(releases: dict[str, Path], workshop: Workshop) -> None:
    """The same faulty stage in both: the new release is no worse than the one before it."""
    faulty = releases["miscalibrated"]
    again = workshop.release("again", brightness=0.5, seed=1)
    assert blame(again, incumbent=faulty, rounds=0).verdict == "nothing"
    assert blame(again, incumbent=releases["good"], rounds=0).verdict == "quantize"


def test_a_few_rows_that_the_incumbent_got_wrong_clear_no_stage(releases: dict[str, Path], workshop: Workshop) -> None:
    """What the incumbent lost on a handful of a window's rows is no measure for all reference rows."""
    sound, bad = Chain.read(releases["good"]), Chain.read(releases["miscalibrated"])
    rows = replayed(releases["good"], {"image": workshop.images}, list(workshop.labels))
    (lost,) = np.nonzero(sound.correct(rows, sound.teacher) & ~sound.correct(rows, sound.last))
    few = lost[:3]
    outputs = {stage: each[few] for stage, each in rows.outputs.items()}
    seen = Rows([rows.ids[at] for at in few], outputs, rows.labels[few], rows.served[few])
    may = quality.allowed(bad, sound, seen)
    assert may.chain == 1
    told = quality.judge(bad, window.nothing(bad), may, alarmed=True, drifted=False, confidence=0.95)
    assert (told.kind, told.stage) == ("stage", "quantize"), told.why


def test_an_alarm_is_explained_and_exported(releases: dict[str, Path], workshop: Workshop, tmp_path: Path) -> None:
    release = releases["miscalibrated"]
    standing = Standing("accuracy", digest(release), "default", State.REGRESSED, "it fell", 1e9 + 300, 300)
    with Traffic().write(f"sqlite:///{tmp_path}/events.db", release, workshop, 0) as store:
        found = on_alarm(Alarm("one", 1e9 + 400, standing), release, store)
    sample = found.sample()
    assert (sample.metric, sample.value) == ("slimline_blame_info", 1.0)
    assert sample.labels == {"signal": "accuracy", "verdict": "stage", "stage": "quantize"}


def test_what_began_lately_is_found_in_the_last_minutes(good: Path, workshop: Workshop, tmp_path: Path) -> None:
    """A hundred blurred rows after two thousand clear ones: too few to show in all, enough to spoil answers."""
    url = f"sqlite:///{tmp_path}/events.db"
    Traffic(rows=2000).write(url, good, workshop, 0).close()
    standing = Standing("accuracy", digest(good), "default", State.REGRESSED, "it fell", 1e9 + 2100, 2100)
    with Traffic(rows=100, change=blurred).write(url, good, workshop, 1, at=1e9 + 2000) as store:
        found = on_alarm(Alarm("one", 1e9 + 2100, standing), good, store)
    assert found.verdict == "data"
    assert found.timed


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rows", [18, 36])
def test_a_shift_of_the_newest_rows_alone_is_no_stages_fault(
    good: Path, workshop: Workshop, tmp_path: Path, seed: int, rows: int
) -> None:
    """A few dozen rows turned around after two hundred clear ones: they flip answers before all rows look moved."""
    url = f"sqlite:///{tmp_path}/events.db"
    Traffic(rows=200, labelled=0).write(url, good, workshop, seed).close()
    turned = Traffic(rows=rows, labelled=0, change=rotated)
    with turned.write(url, good, workshop, seed + 100, at=1e9 + 200) as store:
        found = blame(good, store, signal="agreement", rounds=0)
    assert found.verdict == "data", found.why
    assert "in the last" in found.why


@pytest.mark.parametrize(("rows", "verdict"), [(20, "nothing"), (250, "quantize")])
def test_a_stage_is_blamed_on_a_handful_of_rows_only_where_the_reference_rows_know(
    releases: dict[str, Path], workshop: Workshop, tmp_path: Path, rows: int, verdict: str
) -> None:
    """A stage that fails where it serves; what was bad when it was built needs no rows of production at all."""
    verdicts = {}
    for name in ("elsewhere", "miscalibrated"):
        url = f"sqlite:///{tmp_path}/{name}.db"
        with Traffic(rows=rows, labelled=0).write(url, releases[name], workshop, 0) as store:
            verdicts[name] = blame(releases[name], store, signal="agreement", rounds=0).verdict
    assert verdicts == {"elsewhere": verdict, "miscalibrated": "quantize"}


def test_too_few_rows_are_said_to_tell_nothing(good: Path, workshop: Workshop) -> None:
    """A loss that may be above what is allowed was reported as none."""
    chain = Chain.read(good)
    rows = replayed(good, {"image": workshop.images}, list(workshop.labels))

    def told(seen: Rows, reference: Rows) -> str:
        vars(chain)["reference"] = reference  # where the cached property keeps them
        may = replace(quality.allowed(chain, None, None), chain=0.06, source="the budget's 6.0%")
        found = quality.judge(chain, window.of_rows(seen), may, alarmed=False, drifted=False, confidence=0.95)
        assert found.kind == "nothing", found.why
        return found.why

    none, few = part(rows, 0), part(rows, 20)
    assert told(none, rows) == "no stage lost more than the budget's 6.0% on the reference rows"
    assert told(rows, rows).endswith(f"on the reference rows or on {len(rows)} rows of the window")
    interval = r"from teacher to quantize it is -?[\d.]+% \[-[\d.]+%, [\d.]+%\]; about ([\d,]+) would"
    open_ = r"^20 {} can't tell whether a stage lost more than the budget's 6\.0%: " + interval
    for why, which in {
        told(none, few): "reference rows",
        told(few, few): "labelled rows of the window",
        told(few, rows): "labelled rows of the window",
    }.items():
        found = re.match(open_.format(which), why)
        assert found, why
        assert 20 < int(found[1].replace(",", "")) < 5000
    assert told(none, few).endswith("; --inputs FILE sends labelled rows through every stage")
    assert told(few, rows).endswith("; no stage lost more than the budget's 6.0% on the reference rows")
    unlabelled = replace(few, labels=np.full(20, -1))
    assert re.match(r"20 rows of the window without a label can't tell .* labels for them", told(unlabelled, rows))
    assert re.match(r"the reference rows alone have no label", told(none, unlabelled))


def part(rows: Rows, count: int) -> Rows:
    """The first rows."""
    outputs = {stage: each[:count] for stage, each in rows.outputs.items()}
    return Rows(rows.ids[:count], outputs, rows.labels[:count], rows.served[:count])


def test_latency_is_told_by_the_batch_that_was_timed(good: Path, tmp_path: Path, resealed: Callable[..., Path]) -> None:
    """Where the benchmark has no batch of one, a row's time is none of what is measured."""

    def drop_ones(_: Path, card: dict[str, Any]) -> None:
        for row in card["benchmark"]["stages"].values():
            del row["latency_ms"]["1"]

    text = page.markdown(blame(resealed(good, tmp_path / "eights", drop_ones), rounds=2))
    assert "| latency p50, batch 8 | benchmark |" in text
    assert re.search(r"\| [\d.]+ ms \| [\d.]+ ms \|$", text, re.MULTILINE)
    assert "| latency p50 | benchmark |" in page.markdown(blame(good, rounds=0))


def test_the_command_prints_a_table_and_writes_it(
    releases: dict[str, Path], workshop: Workshop, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    Traffic(labelled=0.5).write(url, releases["miscalibrated"], workshop, 0).close()
    out = tmp_path / "out"
    arguments = ["blame", str(releases["miscalibrated"]), "--store", url, "--since", "2001-01-01", "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1, done.output
    assert done.output.startswith("quantize: quantize loses ")
    assert done.output.count("\n") < 20
    told = json.loads((out / "blame.json").read_text())
    assert (told["verdict"], told["stage"], told["requests"]) == ("quantize", "quantize", 400)
    text = (out / "blame.md").read_text()
    assert text.startswith("# Blame: quantize\n")
    assert "| **quantize** |" in text
    assert (out / "blame.png").read_bytes().startswith(b"\x89PNG")
    done = CliRunner().invoke(app, ["blame", str(releases["good"])])
    assert (done.exit_code, done.output.splitlines()[0].partition(":")[0]) == (0, "nothing")


def test_the_store_that_serve_writes_here_is_read(
    good: Path, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After ``serve`` and ``monitor``, none of which names a store, it said that there were no requests."""
    monkeypatch.chdir(tmp_path)
    Traffic(rows=60).write("sqlite:///events.db", good, workshop, 0).close()
    done = CliRunner().invoke(app, ["blame", str(good)])
    assert "what was answered is read from sqlite:///events.db; --store '' leaves it out" in done.stderr
    assert "speed: no requests" not in done.stdout
    assert "speed: no requests" in CliRunner().invoke(app, ["blame", str(good), "--store", ""]).stdout


def test_bad_input_is_named(good: Path, two_releases: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing"):
        blame(tmp_path)
    done = CliRunner().invoke(app, ["blame", str(good), "--store", f"sqlite:///{tmp_path}/none.db"])
    assert isinstance(done.exception, SlimlineError)
    done = CliRunner().invoke(app, ["blame", str(good), "--since", "yesterday"])
    assert "--since: 'yesterday' is no time" in str(done.exception)
    done = CliRunner().invoke(app, ["blame", str(tmp_path)])
    assert "neither a release nor a deployment with a current one; slimline deploy makes one" in str(done.exception)


def test_the_page_says_what_there_is(watch: Watch, good: Path) -> None:
    text = "\n".join(page.lines(blame(good, rounds=0)))
    assert "its reference rows alone" in text
    assert "nan" not in text
    found = watch("blur, labels missing")
    assert "0 of them labelled" in page.markdown(found)
    assert found.classes, "what flips is told by the teacher's answers"


def test_a_store_without_the_release_leaves_the_reference_rows(good: Path, tmp_path: Path) -> None:
    with EventStore.open(f"sqlite:///{tmp_path}/events.db") as store:
        found = blame(good, store, rounds=0)
    assert (found.verdict, found.rows, found.requests) == ("nothing", 0, 0)
