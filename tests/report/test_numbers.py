"""Numbers carry the digits that mean something, and a real minus sign."""

import pytest

from slimline.report import numbers


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"), (0.04014, "0.0401"), (0.000123456, "0.000123"), (0.9, "0.900"), (1.234, "1.23"), (22.49, "22.5"),
        (122.4, "122"), (12345.6, "12,346"), (-0.5, "−0.500"),
    ],
)  # fmt: skip
def test_three_significant_digits(value: float, shown: str) -> None:
    assert numbers.significant(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(92_340, "92.3 kB"), (999_600, "1.00 MB"), (11_180_000, "11.2 MB"), (950, "950 B"), (2.5e9, "2.50 GB")],
)
def test_counts_take_prefixes(value: float, shown: str) -> None:
    assert numbers.count(value, "B") == shown


@pytest.mark.parametrize(
    ("after", "before", "shown"),
    [(20, 100, "−80%"), (118, 100, "+18%"), (100.2, 100, "±0%"), (0.4, 100, "−99.6%")],
)
def test_relative_changes_show_their_sign(after: float, before: float, shown: str) -> None:
    assert numbers.percent_change(after, before) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(4.24, "4.2 s"), (41, "41 s"), (725, "12 min 05 s"), (3599.7, "1 h 00 min"), (7380, "2 h 03 min")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert numbers.duration(seconds) == shown


@pytest.mark.parametrize(
    ("change", "shown"),
    [(-0.0018, "−0.2 points of accuracy"), (0.003, "+0.3 points of accuracy"), (0.0002, "no change in accuracy")],
)
def test_changes_of_a_score_are_points(change: float, shown: str) -> None:
    metric = numbers.Metric("accuracy", higher_is_better=True, score=True, decimals=1)
    assert metric.change(change) == shown


@pytest.mark.parametrize(
    ("drop", "higher", "shown", "between"),
    [
        (0.0068, True, "0.7 points", "0.3 to 1.1"),
        (-0.083, True, "8.3 points higher", "−1.1 to −0.3"),
        (-0.083, False, "8.3 points lower", "−1.1 to −0.3"),
        (-0.0001, True, "0.0 points", "0.3 to 1.1"),
    ],
    ids=["drop", "gain", "less is better", "nothing"],
)
def test_a_gain_is_no_negative_drop(drop: float, higher: bool, shown: str, between: str) -> None:
    metric = numbers.Metric("accuracy", higher_is_better=higher, score=True, decimals=1)
    assert (metric.drop(drop), metric.drops(drop, [0.0029, 0.0107])) == (shown, between)
