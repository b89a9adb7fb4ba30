"""A method that breaks no promise; the bad methods of the tests break one each."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from slimline.method import Batches, Context, Edit, Method, Plan


@dataclass(frozen=True)
class Nothing(Method):
    """Does nothing."""

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        return Plan(Edit(f"{type(self).__module__}:{type(self).__name__}", {}))

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return model
