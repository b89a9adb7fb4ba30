from __future__ import annotations

import pytest

from slimline import errors


@pytest.mark.parametrize(
    ("word", "hint"),
    [("structred", " Did you mean 'structured'?"), ("zzz", "")],
    ids=["near", "far"],
)
def test_near_miss(word: str, hint: str) -> None:
    assert errors.near_miss(word, ["structured", "svd"]) == hint


def test_every_error_is_a_slimline_error() -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type)]
    assert len(classes) > 5
    assert all(issubclass(each, errors.SlimlineError) for each in classes)
