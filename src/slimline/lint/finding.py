"""One thing that is wrong with a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Effect = Literal["rejected", "not built", "misread", "slow"]


@dataclass(frozen=True)
class Finding:
    """``node`` as the model names it, or by its place; ``saw`` is what is there, ``change`` what to do about it.

    ``effect``: the runtime rejects the model, parses it but builds no engine, reads it otherwise than ONNX means, or
    runs it slower than it could.
    """

    rule: str
    node: str
    saw: str
    change: str
    effect: Effect

    def __str__(self) -> str:
        return f"{self.node}: {self.rule} ({self.effect}): {self.saw}; {self.change}"
