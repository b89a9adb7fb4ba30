from __future__ import annotations

import threading

import pytest
import torch

from slimline.training.feeding import ask_for_determinism, made, sent


@pytest.mark.parametrize("ahead", [False, True])
def test_every_item_comes_in_order(ahead: bool) -> None:
    assert list(made(range(5), lambda each: each * each, ahead=ahead)) == [(each, each * each) for each in range(5)]
    assert list(made([], str, ahead=ahead)) == []


def test_the_next_is_made_while_the_caller_works_and_no_more_than_that() -> None:
    started = [threading.Event() for _ in range(4)]

    def make(item: int) -> int:
        started[item].set()
        return item

    coming = made(range(4), make, ahead=True)
    assert next(coming) == (0, 0)
    assert started[1].wait(5)
    assert not started[2].wait(0.2)
    assert [item for item, _ in coming] == [1, 2, 3]


@pytest.mark.parametrize("ahead", [False, True])
def test_what_fails_is_raised_at_its_turn(ahead: bool) -> None:
    coming = made([2, 1, 0], lambda each: 2 // each, ahead=ahead)
    assert [next(coming), next(coming)] == [(2, 1), (1, 2)]
    with pytest.raises(ZeroDivisionError):
        next(coming)


def test_a_tensor_goes_to_its_device_unchanged() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    value = torch.arange(6.0).reshape(2, 3)
    assert sent(value, device).device.type == device.type
    torch.testing.assert_close(sent(value, device).cpu(), value)


def test_cpu_kernels_are_left_as_they_are() -> None:
    before = torch.are_deterministic_algorithms_enabled()  # stages that ran in this process ask for them
    torch.use_deterministic_algorithms(mode=False)
    try:
        ask_for_determinism(torch.device("cpu"))
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(before)
