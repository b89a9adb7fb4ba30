"""Numbers as people read them: three significant digits, percent and points for scores, signs that can be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """A quality metric and how its values are shown.

    ``score``: larger is better and every value lies in [0, 1], so percent and points say it best.
    ``decimals``: of a percentage; fewer where few test rows were answered.
    """

    name: str
    higher_is_better: bool
    score: bool
    decimals: int

    @property
    def title(self) -> str:
        return self.name.replace("_", " ").replace("f1", "F1")

    @property
    def loss(self) -> str:
        """What it is called when this metric gets worse."""
        return "drop" if self.higher_is_better else "rise"

    def tick(self, value: float) -> str:
        """Return a value on an axis, to as many digits as it has."""
        return self.value(value) if self.score else f"{value:g}"

    def value(self, value: float) -> str:
        """Return a value: ``90.5%``, or ``0.312`` where the metric is no score."""
        return f"{100 * value:.{self.decimals}f}%" if self.score else significant(value)

    def interval(self, bounds: Sequence[float]) -> str:
        """Return an interval of values."""
        low, high = (self.value(each) for each in bounds)
        return f"{low.removesuffix('%')} to {high}"

    def difference(self, value: float, *, signed: bool = False) -> str:
        """Return a difference of two values in points (or the metric's own unit), without its name."""
        text = f"{100 * value:.{self.decimals}f}" if self.score else significant(value)
        return sign(text, signed=signed) + (" points" if self.score else "")

    def gains(self, drop: float) -> bool:
        """Return whether a drop is less than nothing, as far as it is shown."""
        return self.difference(drop).startswith("−")

    def drop(self, value: float) -> str:
        """Return a drop, without its name: ``0.7 points``; a gain in words: ``8.3 points higher``."""
        shown = self.difference(value)
        return f"{shown[1:]} {'higher' if self.higher_is_better else 'lower'}" if self.gains(value) else shown

    def drops(self, value: float, bounds: Sequence[float]) -> str:
        """Return the interval of a drop, counted as ``drop`` counts its value: of a gain, positive is better."""
        return self.differences([-bounds[1], -bounds[0]] if self.gains(value) else bounds)

    def change(self, value: float) -> str:
        """Return a change as a phrase: ``−0.2 points of accuracy``."""
        shown = self.difference(value, signed=True)
        if not any(digit in shown for digit in "123456789"):
            return f"no change in {self.title}"
        return f"{shown} of {self.title}" if self.score else f"{shown} {self.title}"

    def differences(self, bounds: Sequence[float]) -> str:
        """Return an interval of differences."""
        low, high = (self.difference(each).removesuffix(" points") for each in bounds)
        return f"{low} to {high}"


def metric(measured: Mapping[str, Any], name: str, rows: Sequence[Mapping[str, Any]]) -> Metric:
    """Return how metric ``name`` of a benchmark document is shown; ``rows`` are the stages compared."""
    higher = not any(name in row.get("lower_is_better", ()) for row in rows)
    values = [row[name] for row in rows if name in row]
    score = higher and all(0 <= value <= 1 for value in values)
    return Metric(name, higher, score, 2 if measured["rows"]["test"] >= 5000 else 1)


def sign(number: str, *, signed: bool = False) -> str:
    """Return a formatted number with a real minus sign, with ± for zero when ``signed``."""
    if not any(digit in number for digit in "123456789"):
        return ("±" if signed else "") + number.removeprefix("-")
    return number.replace("-", "−") if number.startswith("-") else ("+" if signed else "") + number


def significant(value: float) -> str:
    """Return ``value`` with three significant digits and no exponent."""
    if value == 0:
        return "0"
    exponent = int(f"{value:.2e}".partition("e")[2])
    return sign(f"{value:,.{max(0, 2 - exponent)}f}")


def points(value: float) -> str:
    """Return a difference of shares in points, signed: ``−1.5``."""
    return sign(f"{100 * value:.1f}", signed=True)


def ratio(value: float) -> str:
    """Return a factor: ``22.1×``."""
    return f"{significant(value)}×"


def ratios(bounds: Sequence[float]) -> str:
    """Return an interval of factors."""
    return f"{significant(bounds[0])} to {ratio(bounds[1])}"


def count(value: float, unit: str = "") -> str:
    """Return a count with a decimal prefix: ``92.3 kB``."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor * 0.9995:
            return f"{significant(value / factor)} {prefix}{unit}"
    return f"{value:,.0f} {unit}".strip()


def milliseconds(value: float) -> str:
    """Return a latency given in ms."""
    return f"{significant(value)} ms"


def percent_change(after: float, before: float) -> str:
    """Return the relative change: ``−80%``; one decimal where nearly all is gone."""
    change = 100 * (after / before - 1)
    return sign(f"{change:.{1 if change < -99 else 0}f}", signed=True) + "%"


def percent(share: float) -> str:
    """Return a share: ``75%``, ``0.83%``; what is too small to show but not nothing is ``<0.01%``."""
    if 0 < share < 0.00005:
        return "<0.01%"
    decimals = 0 if share == 0 or share >= 0.1 else 1 if share >= 0.01 else 2
    return f"{100 * share:.{decimals}f}%"


def duration(seconds: float) -> str:
    """Return a time that a stage took: ``41 s``, ``12 min 05 s``, ``2 h 03 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
