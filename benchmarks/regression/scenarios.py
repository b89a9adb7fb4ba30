"""What is planted, and what has to come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from traffic import Rows, reweighted, shifted

BLUR, DEGREES = 1.0, 20.0
MILD = 0.5  # pixels of blur: half a point of accuracy
SHARES = {6: 0.4, 0: 0.2}  # the classes that the teacher itself takes for each other most often
SLOWER = 2.0
STOPPED = 2.0
RUNS = 0.0005  # seconds: about a request


@dataclass(frozen=True)
class Scenario:
    """``release`` is a key of planted.FAULTS that becomes current, ``change`` what happens to the rows; each model call
    waits ``slower`` times its objective; the endpoint runs for ``RUNS`` and stands still for ``stopped`` times that
    objective, again and again. It lasts ``seconds`` at most. ``blame`` is the verdict it has to get, if any.
    """

    letter: str
    title: str
    seconds: float
    release: str | None = None
    change: Callable[[Rows, int], Rows] | None = None
    slower: float = 0.0
    stopped: float = 0.0
    blame: str | None = None


SCENARIOS = {
    each.letter: each
    for each in (
        Scenario("a", "a release whose quantize stage was miscalibrated", 120, release="quantize", blame="quantize"),
        Scenario("b", "a release whose prune stage never saw two classes", 120, release="prune", blame="prune"),
        Scenario(
            "c",
            "the images are blurred and turned",
            90,
            change=lambda rows, _: shifted(rows, blur=BLUR, degrees=DEGREES),
        ),
        Scenario(
            "d",
            "two hard classes make up 60% of the traffic",
            90,
            change=lambda rows, seed: reweighted(rows, SHARES, seed),
        ),
        Scenario(
            "e", "each model call waits twice as long as its objective allows", 120, slower=SLOWER, blame="serving"
        ),
        Scenario("f", "nothing", 90),
        Scenario(
            "g",
            "the images are blurred by half a pixel",
            90,
            change=lambda rows, _: shifted(rows, blur=MILD, degrees=0.0),
        ),
        Scenario("h", "the endpoint gets a seventh of a core", 120, stopped=STOPPED, blame="serving"),
    )
}
