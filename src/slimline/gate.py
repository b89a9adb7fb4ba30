"""The verdict on a release: every line of the budget against what was measured, judged on the interval's bad end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from slimline import benchmark, manifest, params, pipeline
from slimline.archive import MAKE
from slimline.errors import ParamsError, ReleaseError
from slimline.params import Budget
from slimline.promises import kind_of
from slimline.release import FORMAT

Kind = Literal["drop", "recall", "speed-up", "bytes", "teacher"]


@dataclass(frozen=True)
class Check:
    """One line of the verdict; ``what`` says it to people, ``fact`` of a teacher what shows it.

    ``interval`` None: a single number was measured.
    """

    kind: Kind
    what: str
    limit: float
    value: float
    interval: list[float] | None
    ok: bool
    fact: str = ""

    @property
    def is_open(self) -> bool:
        """Whether the value keeps the limit and its interval doesn't: too little was measured to tell."""
        if self.kind == "teacher":
            return self.value > self.limit
        return not self.ok and (self.value <= self.limit if self.at_most else self.value >= self.limit)

    @property
    def cure(self) -> str:
        """What would tell where ``is_open``."""
        return "more latency.rounds, or a quieter machine," if self.kind == "speed-up" else "more rows"

    @property
    def at_most(self) -> bool:
        """Whether the value must not be above the limit, rather than not below it."""
        return self.kind in {"drop", "bytes"}


def judge(
    budget: Budget, measured: Mapping[str, Any], stage: str, *, where: str = "params.yaml: budget"
) -> list[Check]:
    """Return one Check a budget line for ``stage``, after one that fails where the teacher is no better than guessing:
    what a budget allows is counted from its answers. Raises ParamsError naming a metric, batch or label not measured.
    """
    if stage not in measured["stages"]:
        known = ", ".join(measured["stages"])
        raise ParamsError(
            f"metrics/benchmark.json: {stage}, the last stage, is not in it (it has {known}): run dvc repro"
        )
    row = measured["stages"][stage]
    checks = []
    if guessing := measured.get("teacher_at_chance"):
        what, fact = f"the teacher is {guessing['what']}", guessing["fact"]
        checks.append(Check("teacher", what, 0.0, guessing["margin"], None, ok=False, fact=fact))
    for metric, limit in budget.max_drop.items():
        if metric not in row["drops"]:
            raise ParamsError(f"{where}.max_drop.{metric}: not measured; measured are {', '.join(row['drops'])}")
        drop, ci = row["drops"][metric]["drop"], row["drops"][metric]["ci"]
        checks.append(Check("drop", f"drop of {metric}", limit, drop, ci, ci[1] <= limit))
    for batch, limit in _speedups(budget, measured).items():
        if str(batch) not in row["speedup"]:
            known = ", ".join(row["speedup"])
            raise ParamsError(f"{where}.min_speedup.{batch}: batch {batch} was not measured; measured are {known}")
        ratio, ci = row["speedup"][str(batch)], row["speedup_ci"][str(batch)]
        checks.append(Check("speed-up", f"speed-up at batch {batch}", limit, ratio, ci, ci[0] >= limit))
    if budget.max_bytes is not None:
        checks.append(Check("bytes", "bytes", budget.max_bytes, row["bytes"], None, row["bytes"] <= budget.max_bytes))
    for label, limit in budget.min_recall.items():
        if label not in row.get("per_class", {}):
            known = ", ".join(row.get("per_class", {}))
            cure = f"labels: {known}" if known else "this task has none: bound max_drop instead"
            raise ParamsError(f"{where}.min_recall.{label}: no such label; {cure}")
        recall, ci = row["per_class"][label]["recall"], row["per_class"][label]["recall_ci"]
        checks.append(Check("recall", f"recall of {label}", limit, recall, ci, ci[0] >= limit))
    return checks


def judge_release(release: Path) -> list[Check]:
    """Return one Check a line of the budget that a release was made with.

    Raises ReleaseError where there is none, ArtifactError when it is damaged.
    """
    if not (release / "card.json").is_file():
        raise ReleaseError(f"{release}: no release, card.json is missing; {MAKE}")
    manifest.verify(release)
    card = manifest.read_json(release / "card.json")
    manifest.check_format(card, release / "card.json", FORMAT)
    return _judged(card["params"], card["benchmark"], f"{release}/card.json: budget")


def judge_measured() -> list[Check]:
    """Return one Check a line of params.yaml's budget for what metrics/benchmark.json holds."""
    return _judged(params.read(), manifest.read_json(benchmark.FILE), f"{params.FILE}: budget")


def _judged(document: dict[str, Any], measured: Mapping[str, Any], where: str) -> list[Check]:
    budget = params.parse(document).budget
    pipeline.check_order(document)
    return judge(budget, measured, pipeline.last(document), where=where)


def _speedups(budget: Budget, measured: Mapping[str, Any]) -> dict[int, float]:
    if budget.min_speedup is None:
        return {}
    if isinstance(budget.min_speedup, dict):
        return budget.min_speedup
    return {measured["target"]["batch_sizes"][0]: budget.min_speedup}


def on_card(card: Mapping[str, Any]) -> list[Check]:
    """Return the verdict that a release's card holds."""
    return [Check(**{**each, "kind": kind_of(each)}) for each in card.get("verdict", {}).get("checks", [])]


def summary(checks: Sequence[Check]) -> str:
    """Return the verdict in words that go on after the name of what was judged."""
    failed = [check for check in checks if not check.ok]
    if not failed:
        return "is within budget"
    if failed[0].kind == "teacher":
        return f"fails: {failed[0].what}"
    if all(check.is_open for check in failed):
        return "keeps the budget, but its intervals are too wide to tell"
    return "is over budget"


def rows_used(measured: Mapping[str, Any]) -> str:
    """Return how many rows of how many ``limit`` left to what was measured, nothing where it cut none."""
    left: Mapping[str, Sequence[int]] = measured.get("left_out", {})
    return ", ".join(f"{used:,} of {count:,} {split} rows" for split, (used, count) in left.items())


def trial(release: Path) -> str:
    """Return what to say of a release that ``limit`` made a trial, nothing of any other."""
    return _trial(manifest.read_json(release / "card.json"))


def _trial(card: Mapping[str, Any]) -> str:
    used = rows_used(card.get("benchmark", {}))
    return f"a trial, made with limit: {used}" if used else ""


def warnings(release: Path) -> list[str]:
    """Return what to know of a release before it answers, by its card: what the gate fails, and that it is a trial."""
    card = manifest.read_json(release / "card.json")
    checks = on_card(card)
    found = []
    if failed := ", ".join(check.what for check in checks if not check.ok):
        more = f"promote refuses it; slimline gate --release {release} has the numbers"
        found.append(f"{summary(checks)} ({failed}): {more}")
    if said := _trial(card):
        found.append(f"is {said}")
    return found


def lines(checks: list[Check]) -> list[str]:
    """Return the verdict as text, one line a check."""
    shown = []
    for check in checks:
        interval = f" [{_number(check.interval[0])}, {_number(check.interval[1])}]" if check.interval else ""
        sign = "≤" if check.at_most else "≥"
        gain = " (a gain)" if check.kind == "drop" and check.value < 0 else ""
        mark = "ok  " if check.ok else "FAIL"
        if check.kind == "teacher":
            cure = f"{check.cure} would tell" if check.is_open else "a budget against it says nothing"
            shown.append(f"{mark} {check.what}: {check.fact}; {cure}")
            continue
        few = f"; kept, but not by the interval: {check.cure} would tell" if check.is_open else ""
        shown.append(
            f"{mark} {check.what}: {_number(check.value)}{gain}{interval}, budget {sign} {_number(check.limit)}{few}"
        )
    return shown


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
