"""Mixed precision: widths by layer, chosen by measurement.

``bits: auto`` gives each layer's weights a width of ``choices`` within a budget (``bit_allocation.py``),
``skip: auto`` leaves layers in floating point (``float_layers.py``). Nothing is trained for either, so recovery
starts at what was measured here. Choices are recorded in ``decisions/STAGE.json``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Annotated

from pydantic import ConfigDict, Field
from torch import nn

from slimline.errors import MethodError
from slimline.method import Batches, Context
from slimline.quantization import bit_allocation, float_layers
from slimline.quantization.costs import Trial
from slimline.quantization.grids import FLOAT

if TYPE_CHECKING:
    from slimline.quantization.keys import QuantizeKeys
    from slimline.quantization.plan import Quantize


@dataclass(frozen=True)
class Budget:
    """One of three: ``bytes`` of the model file, ``latency`` as a share of the input model's, or ``max_loss``."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    bytes: Annotated[int, Field(ge=1)] | None = None
    latency: Annotated[float, Field(gt=0, lt=1)] | None = None
    max_loss: Annotated[float, Field(ge=0)] | None = None


def check(method: QuantizeKeys, where: str) -> None:
    """Raise MethodError where keys of a quantize method contradict each other."""
    given = [key for key, value in asdict(method.budget).items() if value is not None] if method.budget else []
    kinds = ", ".join(field.name for field in fields(Budget))
    if method.bits != "auto":
        if method.budget is not None:
            raise MethodError(f"{where}.budget: it is read with bits: auto alone, and bits is {method.bits}")
        return
    if len(given) != 1:
        found = " and ".join(given) or "nothing"
        raise MethodError(f"{where}.budget: bits: auto keeps to one of {kinds}; found {found}")
    if method.weight_bits is not None:
        raise MethodError(f"{where}.weight_bits: bits: auto chooses them from choices; leave it out")
    if method.skip == "auto":
        raise MethodError(f"{where}.skip: bits: auto chooses that too: add 32 to choices, the width of a float layer")
    if len(set(method.choices)) < 2:
        raise MethodError(f"{where}.choices: {method.choices} leaves nothing to choose; give two widths or more")


def resolve(method: Quantize, model: nn.Module, batches: Batches, context: Context) -> tuple[Quantize, list[str]]:
    """Return ``method`` with what was measured (or recorded) in place of ``auto``, and a note for each layer."""
    trial = Trial(method, model, batches, context)
    decide = bit_allocation.widths if method.bits == "auto" else float_layers.skipped
    choice = context.decisions.choose(method.name, lambda: decide(trial))
    layers = {name: choice["layers"][name] for name, _ in model.named_modules() if name in choice["layers"]}
    notes = [f"{name}: {entry['why']}" for name, entry in layers.items()] + [choice["summary"]]
    widths = {name: entry["bits"] for name, entry in layers.items()}
    floats = {name: bits for name, bits in widths.items() if bits == FLOAT}
    return method.at_widths(widths if method.bits == "auto" else floats), notes
