"""A new last layer learns numbers far from 0 as it learns those around it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from slimline.teachers import number_head

CENTRE, UNIT = 300_000.0, 80_000.0


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x)))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def test_its_answers_are_in_the_targets_unit_before_and_after(net: Net) -> None:
    x = torch.rand(5, 4)
    plain = copy.deepcopy(net)(x)
    with number_head.lifted(net, {"x": x}, list(net.state_dict()), CENTRE, UNIT):
        torch.testing.assert_close(net(x), plain * UNIT + CENTRE)
    torch.testing.assert_close(net(x), plain * UNIT + CENTRE)
    assert not net.head._forward_hooks


def test_a_few_small_steps_reach_numbers_of_any_size(net: Net) -> None:
    x = torch.rand(256, 4)
    y = CENTRE + UNIT * (x.sum(1) - 2)
    with number_head.lifted(net, {"x": x[:2]}, list(net.state_dict()), float(y.mean()), float(y.std())):
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
        for _ in range(150):
            optimizer.zero_grad()
            ((net(x)[:, 0] - y) / y.std()).square().mean().backward()
            optimizer.step()
    assert (net(x)[:, 0] - y).square().mean().sqrt() < 0.2 * y.std()


def test_a_layer_that_was_brought_along_knows_its_unit(net: Net) -> None:
    x = torch.rand(5, 4)
    plain = net(x)
    with number_head.lifted(net, {"x": x}, ["body.weight"], CENTRE, UNIT):
        torch.testing.assert_close(net(x), plain)
    torch.testing.assert_close(net(x), plain)


def test_a_training_that_fails_leaves_no_hook(net: Net) -> None:
    x = torch.rand(5, 4)
    plain = net(x)
    with pytest.raises(KeyboardInterrupt), number_head.lifted(net, {"x": x}, list(net.state_dict()), CENTRE, UNIT):
        raise KeyboardInterrupt
    torch.testing.assert_close(net(x), plain)
