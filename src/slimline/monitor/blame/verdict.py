"""``blame``: one verdict from what each stage says, how fast it is and what production left behind."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slimline.errors import SlimlineError
from slimline.monitor.alarm import Alarm
from slimline.monitor.blame import quality, speed, steps, window
from slimline.monitor.blame.chain import UNKNOWN, Chain, Rows
from slimline.monitor.blame.quality import Opinion
from slimline.monitor.blame.speed import Timed
from slimline.monitor.blame.steps import Step
from slimline.monitor.blame.window import Window
from slimline.monitor.drift import INPUT
from slimline.monitor.signal import Sample
from slimline.monitor.standing import Standing, State
from slimline.params import Monitor
from slimline.predictor import Arrays

if TYPE_CHECKING:
    from slimline.events import EventStore

FORMAT = 1
SPEED = ("latency", "burn", "queue")
DRIFT = ("drift",)
MOST_REPLAYED = 2000
SHARES = (1.0, 1 / 6, 1 / 36)  # of the time before an alarm: an hour, ten minutes, 100 s


@dataclass(frozen=True)
class Blame:
    """What made a release worse.

    ``kind`` is stage, serving (same model, slower or other process), data (the input changed) or nothing, and
    ``stage`` the one to blame. ``why`` says it in one line, ``speed`` and ``quality`` both sides of it. ``window`` and
    ``reference`` hold each stage against the one before it, ``timed`` its latency; ``classes`` and ``examples`` are
    what suffered most, ``params`` and ``digest`` those of the stage blamed.
    """

    kind: str
    stage: str | None
    why: str
    revision: str
    variant: str
    signal: str | None
    opinions: dict[str, str]
    allowed: str
    since: float | None
    until: float | None
    requests: int
    rows: int
    labelled: int
    window: list[Step]
    reference: list[Step]
    timed: list[Timed]
    classes: list[dict[str, Any]]
    examples: list[dict[str, Any]]
    params: dict[str, Any] | None
    digest: str | None

    @property
    def verdict(self) -> str:
        """One word: the stage's name, serving, data or nothing."""
        return self.stage if self.kind == "stage" and self.stage else self.kind

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return {"format": FORMAT, "verdict": self.verdict} | asdict(self)

    def sample(self) -> Sample:
        """Return ``slimline_blame_info``, whose labels an alert's annotation can show; revision and variant aside."""
        labels = {"signal": self.signal or "", "verdict": self.kind, "stage": self.stage or ""}
        return Sample("slimline_blame_info", 1.0, labels)


def blame(
    release: Path,
    store: EventStore | None = None,
    *,
    since: float | None = None,
    until: float | None = None,
    variant: str | None = None,
    rows: Rows | None = None,
    incumbent: Path | None = None,
    signal: str | None = None,
    drifted: bool = False,
    confidence: float = 0.95,
    rounds: int = speed.ROUNDS,
    settings: Monitor | None = None,
) -> Blame:
    """Find what made ``release`` worse in a window of ``store``, or on ``rows`` that were replayed.

    Without either, the release's own reference rows are judged alone. ``incumbent`` is the release before it: what its
    stages lost (on the window's own inputs, where these were kept) is what a stage may lose. ``signal`` is the alarm's,
    ``drifted`` says that the monitor saw the input drift. ``rounds`` of timing; 0: the stages aren't timed.
    ``settings`` is what production is held to, by default as the release's own params.yaml says. Raises ArtifactError
    when a release is damaged, EventError when the store can't be read.
    """
    chain = Chain.read(release, settings)
    old = Chain.read(incumbent) if incumbent is not None else None
    if old is not None and old.labels != chain.labels:
        raise SlimlineError(f"{incumbent}: its labels are not those of {release}: not the same task")
    seen = window.of_rows(rows) if rows is not None else window.nothing(chain)
    if store is not None and rows is None:
        seen = window.read(chain, store, since, until, variant)
    timed = speed.replay(chain, confidence, rounds) if rounds else []
    of_speed, of_drift = (signal is not None and signal.startswith(each) for each in (SPEED, DRIFT))
    may = quality.allowed(chain, old, _incumbents(old, seen.rows))
    answers = quality.judge(
        chain, seen, may, alarmed=signal is not None and not of_speed and not of_drift, drifted=drifted or of_drift,
        confidence=confidence,
    )  # fmt: skip
    times = speed.judge(chain, seen, timed, alarmed=of_speed, confidence=confidence)
    of_times = of_speed  # slow requests explain no wrong answers, nor the other way round
    if signal is None:
        of_times = answers.kind == "nothing" and times.kind != "nothing"
    main = times if of_times else answers
    return _told(
        chain, seen, main, {"quality": answers.why, "speed": times.why}, timed, confidence, variant, signal, may
    )


def on_alarm(
    alarm: Alarm,
    release: Path,
    store: EventStore,
    *,
    incumbent: Path | None = None,
    standings: Collection[Standing] = (),
    seconds: float = 3600.0,
    settings: Monitor | None = None,
) -> Blame:
    """Blame for an alarm: the ``seconds`` before it, of its variant; ``standings`` say whether the input drifts.

    ``settings`` is as in ``blame``.

    What began lately drowns in a long window, so shorter ones are looked at when it says nothing; their number is
    allowed for (Bonferroni).
    """
    own = alarm.standing
    drifted = any(
        each.signal == INPUT and each.state is not State.OK and each.revision == own.revision for each in standings
    )
    whole: Blame | None = None
    for share in SHARES:
        found = blame(
            release, store, since=alarm.time - share * seconds, until=max(alarm.time, time.time()),
            variant=own.variant, incumbent=incumbent, signal=own.signal, drifted=drifted,
            confidence=1 - 0.05 / len(SHARES), rounds=0 if whole else speed.ROUNDS, settings=settings,
        )  # fmt: skip
        whole = whole or found
        if found.kind != "nothing":
            return replace(found, timed=whole.timed)
    assert whole is not None  # noqa: S101
    return whole


def replayed(release: Path, inputs: Arrays, labels: Sequence[object] | None = None) -> Rows:
    """Send ``inputs`` through every stage of ``release``; rows are named by place, ``labels`` are words or indices.

    Where any of several labels may hold, ``labels`` aren't looked at.
    """
    chain = Chain.read(release)
    count = len(next(iter(inputs.values())))
    truth = np.full(count, UNKNOWN)
    if labels is not None and not chain.many:
        truth = np.array([each if isinstance(each, int | np.integer) else chain.index(each) for each in labels])
    outputs = chain.replay(inputs)
    given = outputs[chain.last].argmax(1) if chain.labels and not chain.many else np.full(count, UNKNOWN)
    return Rows([f"row/{place}" for place in range(count)], outputs, truth.astype(np.int64), given, inputs)


def _incumbents(incumbent: Chain | None, rows: Rows) -> Rows | None:
    """Return the window's rows as the incumbent's stages answer them, where their inputs were kept."""
    if incumbent is None or rows.inputs is None:
        return None
    inputs = {name: array[:MOST_REPLAYED] for name, array in rows.inputs.items()}
    return replace(
        rows, ids=rows.ids[:MOST_REPLAYED], outputs=incumbent.replay(inputs), labels=rows.labels[:MOST_REPLAYED],
        served=rows.served[:MOST_REPLAYED], inputs=inputs,
    )  # fmt: skip


def _told(
    chain: Chain,
    seen: Window,
    main: Opinion,
    opinions: Mapping[str, str],
    timed: list[Timed],
    confidence: float,
    variant: str | None,
    signal: str | None,
    may: quality.Allowed,
) -> Blame:
    suffered = seen.rows if len(seen.rows) else chain.reference
    pair = (chain.before[main.stage], main.stage) if main.stage in chain.before else (chain.teacher, chain.last)
    named = main.stage is not None
    return Blame(
        kind=main.kind,
        stage=main.stage,
        why=main.why,
        revision=chain.revision,
        variant=variant or "",
        signal=signal,
        opinions=dict(opinions),
        allowed=may.source,
        since=seen.since,
        until=seen.until,
        requests=len(seen.batch),
        rows=len(seen.rows),
        labelled=int(seen.rows.known.sum()),
        window=steps.steps(chain, seen.rows, confidence),
        reference=steps.steps(chain, chain.reference, confidence),
        timed=timed,
        classes=steps.classes(chain, suffered, *pair, confidence) if main.kind != "nothing" else [],
        examples=steps.examples(chain, suffered, *pair) if main.kind != "nothing" else [],
        params=dict(chain.card["params"].get(main.stage) or {}) if named else None,
        digest=chain.card["digests"].get(main.stage) if named else None,
    )
