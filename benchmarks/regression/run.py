"""The closed loop, live: a regression is planted, seen, blamed on its stage and undone, by the real processes.

``make demo-regression`` plays all scenarios once on what ``make repro`` left: an endpoint that follows a deployment
folder, the monitor, Debian's Prometheus and Alertmanager, traffic from the half of the test split that no floor was
measured on, and labels that come late. Each run leaves .slimline/regression/SCENARIO-SEED/ with result.json, page.html
and all logs. ``--record`` puts what runs found into metrics/regressions.json; docs/check.py --write makes a table of
it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import page
import planted
from halves import halves
from outcome import Outcome, watched
from scenarios import RUNS, SCENARIOS, Scenario
from servers import Loop, until
from throttled import Throttled
from traffic import Rows, Traffic

from slimline import manifest, params, provenance
from slimline.errors import SlimlineError

FOLDER = Path(".slimline/regression")
OUT = Path("metrics/regressions.json")
WARM = 20.0  # seconds before anything is planted
AFTER = 10.0  # seconds that traffic goes on after the rollback
LABELLED, DELAY, SAMPLE = 0.5, 3.0, 0.5


def test_rows() -> Rows:
    """Return what is sent: half of the test split of params.yaml's task."""
    from slimline.stage import Stage

    stage = Stage("teacher", params.load(), None)
    _, split = halves(stage.splits["test"])
    return Rows(split.inputs, split.targets, [str(each) for each in stage.task.labels or ()])


def play(scenario: Scenario, rows: Rows, *, seed: int, rate: float, folder: Path) -> Outcome:
    """Play one scenario and return what came of it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sound = planted.build("sound", folder / "sound")
    fault = planted.build(scenario.release, folder / "planted") if scenario.release else None
    held = manifest.read_json(sound / "monitoring" / "objectives.json")["latency"]
    objective = max(each["seconds"] for each in held.values())
    releases = [sound.resolve()]
    if fault is None:  # where there is nothing to go back to, undo could do nothing wrong
        releases.insert(0, planted.build(planted.EARLIER, folder / "earlier").resolve())
    with (
        Loop(folder.resolve(), releases, sample=SAMPLE, slowed=scenario.slower > 0) as loop,
        ExitStack() as stack,
    ):
        first = loop.deployment.revision()
        with Traffic(loop.urls["endpoint"], rows, rate=rate, labelled=LABELLED, delay=DELAY, seed=seed) as traffic:
            time.sleep(WARM)
            planted_at = time.time()
            said(f"{scenario.letter} planted: {scenario.title}")
            if fault is not None:
                loop.deployment.activate(loop.deployment.install(fault))  # its gate fails: deploying takes it by force
            if scenario.change is not None:
                traffic.rows = scenario.change(rows, seed)
            if scenario.slower:
                loop.delay.write_text(str(scenario.slower * objective))
            if scenario.stopped:
                stack.enter_context(Throttled(loop.endpoint, runs=RUNS, stopped=scenario.stopped * objective))
            until_over(loop, traffic, scenario, first, planted_at)
            time.sleep(AFTER)
        outcome = watched(loop, traffic, scenario, planted_at, first)
    page.write(folder, outcome.document, traffic.sent, planted_at, first)
    return outcome


def until_over(loop: Loop, traffic: Traffic, scenario: Scenario, first: str | None, planted_at: float) -> None:
    """Wait until the planted release was undone, or for as long as the scenario lasts; tell what happens."""
    told: set[tuple[str, str]] = set()

    def is_over() -> bool:
        for alert in loop.alerts():
            name = alert["labels"]["alertname"]
            blame = alert["annotations"].get("blame", "-")
            if (name, blame) not in told:
                told.add((name, blame))
                said(f"{time.time() - planted_at:5.1f} s  {name}: {alert['annotations']['summary']}; blame: {blame}")
        if scenario.blame == "serving" and any(
            name == "SlimlineLatencyRegressed" and blame == scenario.blame for name, blame in told
        ):
            return True
        back = scenario.release and loop.deployment.revision() == first and traffic.sent[-1].revision == first
        if back:
            said(f"{time.time() - planted_at:5.1f} s  traffic is back on the release before")
        return bool(back) or time.time() - planted_at > scenario.seconds

    until(is_over, scenario.seconds + 60, f"{scenario.letter}: it doesn't end")


def said(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def main() -> int:
    """Play the scenarios asked for; return how many runs missed a goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second")
    parser.add_argument("--record", action="store_true", help=f"add the runs to {OUT}")
    options = parser.parse_args()
    rows = test_rows()
    missed = 0
    for letter in options.scenario:
        for seed in options.seeds:
            folder = FOLDER / f"{letter}-{seed}"
            outcome = play(SCENARIOS[letter], rows, seed=seed, rate=options.rate, folder=folder)
            manifest.write_json(folder / "result.json", outcome.document)
            for goal, kept in outcome.goals.items():
                said(f"  {'ok  ' if kept else 'MISS'} {goal}")
            said(f"  {folder}/page.html")
            missed += not all(outcome.goals.values())
            if options.record:
                record(letter, seed, outcome)
    return missed


def record(letter: str, seed: int, outcome: Outcome) -> None:
    """Put one run into metrics/regressions.json, in the place of an earlier one of the same scenario and seed."""
    measured: dict[str, Any] = manifest.read_json(OUT) if OUT.is_file() else {"format": 1, "runs": {}}
    measured["runs"][f"{letter}-{seed}"] = outcome.document | {"release": provenance.named(Path("release"))}
    manifest.write_json(OUT, measured)


if __name__ == "__main__":
    try:
        sys.exit(main() > 0)
    except SlimlineError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
