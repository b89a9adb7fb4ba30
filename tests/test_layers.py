from __future__ import annotations

import pytest
import torch
from torch import nn

from slimline.errors import MethodError
from slimline.layers import Add, calls, not_named, sharing
from slimline.models.resnet import ResNet


def test_add_adds() -> None:
    assert Add()(torch.tensor([1.0]), torch.tensor([2.0])).item() == 3


def test_calls_come_in_order_and_as_often_as_they_are_made() -> None:
    model = nn.ModuleDict({"b": nn.Linear(2, 2), "a": nn.Linear(2, 2), "unread": nn.Linear(2, 2)})
    x = torch.zeros(1, 2)
    assert calls(model, ["a", "unread", "b"], lambda: model["b"](model["a"](model["b"](x)))) == ["b", "a", "b"]
    assert not model["a"]._forward_hooks


def test_globs_leave_what_they_do_not_name_and_must_name_something() -> None:
    names = ["stem", "a.0", "a.1"]
    assert not_named(names, ["a.*"], "here.skip") == ["stem"]
    assert not_named(names, [], "here.skip") == names
    with pytest.raises(MethodError, match=r"^here\.skip: 'b\.\*' matches no layer; layers: stem, a\.0, a\.1$"):
        not_named(names, ["a.*", "b.*"], "here.skip")
    with pytest.raises(MethodError, match=r"'a' matches no convolution; layers: none$"):
        not_named([], ["a"], "here.skip", "convolution")


def test_a_sharing_copy_has_the_models_numbers_and_its_own_structure(resnet: ResNet) -> None:
    shared = sharing(resnet)
    for (name, mine), theirs in zip(shared.state_dict().items(), resnet.state_dict().values(), strict=True):
        assert mine.data_ptr() == theirs.data_ptr(), name
    shared.fc = nn.Identity()
    assert isinstance(resnet.fc, nn.Linear)
    next(shared.parameters()).sum().backward()
    assert next(resnet.parameters()).grad is None
