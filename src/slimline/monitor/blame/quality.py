"""Which stage answers worse than it may: the chain's loss first, then the stage that it came in at.

A stage that was bad when it was built is bad on the release's own reference rows too, so no record of the release
counts as the measure: what counts is the accuracy that the budget lets the chain lose, or that the incumbent lost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from slimline.monitor.blame import steps
from slimline.monitor.blame.chain import Chain, Rows
from slimline.monitor.blame.steps import Share
from slimline.monitor.blame.window import Window

NEWEST, FEWEST = 7, 8  # drift is looked for in a window, its newer half, quarter …, of so many rows at least
ENOUGH = 30  # rows that hold a stage's fault and another input apart, where the reference rows know of neither
MOST_NEEDED = 1e6  # rows: who is told of more won't find them
INPUTS = "--inputs FILE sends labelled rows through every stage"
TESTS = 5  # the chain's loss on reference and window, answers that flip, accuracy served and the teacher's


@dataclass(frozen=True)
class Opinion:
    """``kind`` is stage, data, serving or nothing; ``why`` says it in words."""

    kind: str
    why: str
    stage: str | None = None


@dataclass(frozen=True, eq=False)
class Allowed:
    """What may be lost: ``chain`` from teacher to last, ``stages`` {stage: what the incumbent's lost}, and flips.

    ``same_rows``: the incumbent's losses are those on the window's own rows; ``built_in`` are those on its reference
    rows then, for what a stage loses on the release's: a few rows of a window would allow anything.
    """

    chain: float
    stages: Mapping[str, float]
    flips: float
    source: str
    same_rows: bool = False
    built_in: Allowed | None = None


def allowed(chain: Chain, incumbent: Chain | None, rows: Rows | None) -> Allowed:
    """Return the allowance: the budget's drop of accuracy, or the incumbent's own where that is larger.

    ``rows`` are what the incumbent's stages say about the window's rows; None: its reference rows are taken.
    """
    same_rows = incumbent is not None and rows is not None and bool(rows.known.any())
    built_in = allowed(chain, incumbent, None) if same_rows else None
    margin = chain.objectives.agreement_drop
    losses: dict[str, float] = {}
    budget = chain.budget.max_drop.get("accuracy")
    most, source = (budget, "the budget") if budget is not None else (margin, "the margin")
    if incumbent is not None:
        seen = rows if same_rows and rows is not None else incumbent.reference
        for before, stage in incumbent.steps:
            if found := steps.loss(incumbent, seen, before, stage, 0.95):
                losses[stage] = found.value
        whole = steps.loss(incumbent, seen, incumbent.teacher, incumbent.last, 0.95)
        if whole is not None and whole.value > most:
            most, source = whole.value, "the incumbent"
    return Allowed(most, losses, margin, f"{source}'s {most:.1%}", same_rows, built_in)


def judge(chain: Chain, window: Window, may: Allowed, *, alarmed: bool, drifted: bool, confidence: float) -> Opinion:
    """Say what made answers worse. ``alarmed``: a signal of quality says they are; ``drifted``: one of drift."""
    at = 1 - (1 - confidence) / TESTS
    reference, rows = chain.reference, window.rows
    built_in = steps.loss(chain, reference, chain.teacher, chain.last, at)
    lost = steps.loss(chain, rows, chain.teacher, chain.last, at)
    flips = _more_flips(chain, rows, chain.teacher, chain.last, at)
    moved = _moved(chain, rows, at)
    if drifted and not moved:
        moved = ["the monitor's drift signal"]
    served = _served_fall(chain, window, at)
    taught = _teacher_fall(chain, rows, at)

    own = may.built_in or may
    if built_in and built_in.low > own.chain:
        stage = steps.excess({s: steps.loss(chain, reference, b, s, at) for b, s in chain.steps}, own.stages)
        where = "on the reference rows that the release was made with"
        return Opinion(
            "stage", f"{stage} {_loses(chain, reference, stage, at)}, {where}, more than {own.source}", stage
        )
    hurt = lost is not None and lost.low > may.chain
    flipped = flips is not None and flips.low > may.flips
    if hurt or flipped:
        return _in_window(chain, rows, may, at, moved, hurt=hurt, flipped=flipped)
    if mismatch := _misserved(chain, rows, at):
        return Opinion("serving", mismatch)
    fell = [
        f"{who} {each.value:.1%} (at least {each.low:.1%}) below the reference rows"
        for who, each in (("the teacher's accuracy is", taught), ("accuracy served is", served))
        if each is not None and each.low > may.chain
    ]
    if fell:
        because = f"; what changed is {', '.join(moved)}" if moved else ""
        return Opinion("data", f"{' and '.join(fell)}, and no stage is seen to lose more than {may.source}{because}")
    if moved and (alarmed or drifted):
        return Opinion("data", f"what changed is {', '.join(moved)}; no stage is seen to lose more than {may.source}")
    note = f"; the input changed ({', '.join(moved)})" if moved else ""
    return Opinion("nothing", f"{_nothing(chain, rows, may, built_in, lost, flips)}{note}")


def _nothing(
    chain: Chain, rows: Rows, may: Allowed, built_in: Share | None, lost: Share | None, flips: Share | None
) -> str:
    """Say that no stage lost more than it may, where the intervals say so; else that the rows are too few to tell."""
    own = may.built_in or may
    sound = not chain.steps or (built_in is not None and built_in.high <= own.chain)
    on_reference = f"no stage lost more than {own.source} on the reference rows"
    if not len(rows):
        if sound:
            return on_reference
        if built_in is None:
            return f"the reference rows alone have no label that tells what a stage lost; {INPUTS}"
        return f"{_untold(chain, 'reference rows', built_in, own)}; {INPUTS}"
    by_answers = flips is not None and flips.high <= may.flips and (sound or built_in is None)
    if not chain.steps or by_answers or (lost is not None and lost.high <= may.chain):
        where = "the reference rows or on " if sound else ""
        return f"no stage lost more than {may.source} on {where}{len(rows)} rows of the window"
    known = f"; {on_reference}" if sound else ""
    if lost is not None:
        return f"{_untold(chain, 'labelled rows of the window', lost, may)}{known}"
    if flips is not None and flips.high <= may.flips and built_in is not None:
        return f"{_untold(chain, 'reference rows', built_in, own)}, and the window has no labels"
    said = "" if flips is None else f": they agree on {flips.value:.1%} [{flips.low:.1%}, {flips.high:.1%}] fewer"
    return (
        f"{len(rows)} rows of the window without a label can't tell whether {chain.teacher} and {chain.last} agree on "
        f"{may.flips:.1%} fewer than of the reference rows{said}; labels for them would tell more{known}"
    )


def _untold(chain: Chain, which: str, lost: Share, may: Allowed) -> str:
    """Say that a loss may lie on either side of what is allowed, and how many rows would tell were it as it seems.

    An interval shrinks by the root of the number of rows.
    """
    slack = abs(may.chain - lost.value)
    reach = lost.high - lost.value if lost.value < may.chain else lost.value - lost.low
    needed = lost.rows * (reach / slack) ** 2 if slack else math.inf
    more = f"about {float(f'{needed:.2g}'):,.0f}" if needed < MOST_NEEDED else "very many more"
    return (
        f"{lost.rows:,} {which} can't tell whether a stage lost more than {may.source}: from {chain.teacher} to "
        f"{chain.last} it is {lost.value:.1%} [{lost.low:.1%}, {lost.high:.1%}]; {more} would"
    )


def _in_window(
    chain: Chain, rows: Rows, may: Allowed, at: float, moved: list[str], *, hurt: bool, flipped: bool
) -> Opinion:
    """Say whose fault it is that the chain loses more, or flips more answers, than on the reference rows."""
    stage = _worst(chain, rows, may, at, by_label=hurt)
    what = f"{stage} {_loses(chain, rows, stage, at)}" if hurt else _flips_more(chain, rows, stage, at)
    if hurt and may.same_rows:
        return Opinion("stage", f"{what} in the window; on the same rows the incumbent did not", stage)
    if not flipped and not _spoils_more(chain, rows, at):
        return Opinion("data", f"the mix of labels changed; {what}, as on reference rows of the same labels")
    if moved:
        return Opinion("data", f"the input changed: {', '.join(moved)}; {what}, though not on the reference rows")
    if len(rows) < ENOUGH:
        return Opinion("nothing", f"{what}; {len(rows)} rows don't tell its fault from another input")
    return Opinion("stage", f"{what} in the window, though not on the reference rows and with the same input", stage)


def _moved(chain: Chain, rows: Rows, at: float) -> list[str]:
    """Return how the input differs from the reference rows', in all of the window or in its newest rows.

    A shift drowns among the rows before it, while the flips that it causes may show: those would be a stage's.
    """
    now, before = rows.outputs[chain.teacher], chain.reference.outputs[chain.teacher]
    for part in range(NEWEST):
        count = math.ceil(len(now) / 2**part)
        if part and count < FEWEST:
            break
        if found := steps.moved(chain, now[len(now) - count :], before, 1 - (1 - at) / NEWEST):
            return [*found[:-1], f"{found[-1]} in the last {count} rows"] if part else found
    return []


def _loses(chain: Chain, rows: Rows, stage: str, at: float) -> str:
    before = chain.before[stage]
    found = steps.loss(chain, rows, before, stage, at)
    if found is None:
        return "changes answers"
    return f"loses {found.value:.1%} [{found.low:.1%}, {found.high:.1%}] of the accuracy of {before}, {found.rows} rows"


def _more_flips(chain: Chain, rows: Rows, before: str, stage: str, at: float) -> Share | None:
    """Return by how much agreement fell below the reference's at the window's mix of the teacher's answers."""
    if not len(rows):
        return None
    reference = chain.reference
    now = chain.agree(rows, before, stage)
    base = chain.agree(reference, before, stage)
    if chain.labels:
        groups, mix = (each.outputs[chain.teacher].argmax(1) for each in (reference, rows))
        base = steps.at_mix(base, groups, mix)
    return steps.fall(now, base, at)


def _spoils_more(chain: Chain, rows: Rows, at: float) -> bool:
    """Return whether the chain spoils more of the teacher's right answers than of reference rows so labelled."""
    kept = [
        (~chain.correct(each, chain.teacher) | chain.correct(each, chain.last))[each.known]
        for each in (rows, chain.reference)
    ]
    base = steps.at_mix(kept[1], chain.reference.labels[chain.reference.known], rows.labels[rows.known])
    found = steps.fall(kept[0], base, at)
    return found is not None and found.low > 0


def _flips_more(chain: Chain, rows: Rows, stage: str, at: float) -> str:
    before = chain.before[stage]
    found = _more_flips(chain, rows, before, stage, at)
    if found is None:
        return f"{stage} changes answers"
    return f"{stage} agrees with {before} on {found.value:.1%} [{found.low:.1%}, {found.high:.1%}] fewer rows"


def _worst(chain: Chain, rows: Rows, may: Allowed, at: float, *, by_label: bool) -> str:
    if by_label:
        return steps.excess({s: steps.loss(chain, rows, b, s, at) for b, s in chain.steps}, may.stages)
    return steps.excess({s: _more_flips(chain, rows, b, s, at) for b, s in chain.steps}, {})


def _served_fall(chain: Chain, window: Window, at: float) -> Share | None:
    """Return how far accuracy served fell below the last stage's on the reference rows."""
    known = (window.truths >= 0) & (window.answers >= 0)
    base = chain.correct(chain.reference, chain.last)[chain.reference.known]
    now = (window.answers == window.truths)[known]
    return steps.fall(now, base, at) if len(base) else None


def _teacher_fall(chain: Chain, rows: Rows, at: float) -> Share | None:
    base = chain.correct(chain.reference, chain.teacher)[chain.reference.known]
    now = chain.correct(rows, chain.teacher)[rows.known]
    return steps.fall(now, base, at) if len(base) else None


def _misserved(chain: Chain, rows: Rows, at: float) -> str | None:
    """Say that answers given are not those of the last stage's model for the same rows, where they aren't."""
    given = rows.served >= 0
    if not given.any():
        return None
    same = rows.outputs[chain.last].argmax(1)[given] == rows.served[given]
    differs = steps.fall(same, np.ones_like(same), at)
    if differs is None or differs.low <= chain.objectives.error_share:
        return None
    return f"{differs.value:.1%} of the answers given are not what {chain.last}'s own model says about the same rows"
