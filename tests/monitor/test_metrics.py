"""What is shown of signals stays bounded, and the worst is shown."""

from __future__ import annotations

from slimline.monitor.metrics import MOST, of_signals
from slimline.monitor.standing import Standing, State

OWN = ("sha256:a", "main")


def standing(signal: str, state: State, evidence: float) -> Standing:
    return Standing(signal, *OWN, state, "", 0.0, 1, evidence=evidence, threshold=1e6)


def test_of_many_details_the_worst_are_shown() -> None:
    bad = {f"accuracy/{number}" for number in range(990, 1000)}
    details = [f"accuracy/{number}" for number in range(1000)]
    standings = [
        *(standing(name, State.REGRESSED if name in bad else State.OK, float(n)) for n, name in enumerate(details)),
        standing("accuracy", State.OK, 0.0), standing("traffic", State.OK, 0.0),
    ]  # fmt: skip
    shown = [each.labels["signal"] for each in of_signals(OWN, standings, []) if each.metric == "slimline_evidence"]
    assert len(shown) == len(set(shown)) == MOST
    assert {"accuracy", "traffic"} | bad <= set(shown)
    assert {f"accuracy/{number}" for number in range(985, 990)} <= set(shown), "then by evidence"
