"""Which function reads what another one made: tensors followed by identity through one forward run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from torch import Tensor
from torch.overrides import TorchFunctionMode

V = TypeVar("V")


class Watch(TorchFunctionMode, Generic[V]):
    """While this is open every torch function called is shown to ``see``.

    ``values`` is what a subclass knows of a tensor, by the tensor's id.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[int, V] = {}
        self._alive: list[Any] = []  # while they live, no other tensor gets their ids

    @abstractmethod
    def see(self, func: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any], out: Any) -> None:
        """Note what the call ``func(*args, **given)``, which returned ``out``, tells of its tensors."""

    def known(self, data: Any) -> list[V]:
        """Return what is known of the tensors in ``data``, those inside lists, tuples and dicts too."""
        return [self.values[id(each)] for each in tensors(data) if id(each) in self.values]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        out = func(*args, **given)
        self._alive.append((args, given, out))
        self.see(func, args, given, out)
        return out


def tensors(data: Any) -> list[Tensor]:
    """Return the tensors in ``data``, in order, those inside lists, tuples and dicts too."""
    if isinstance(data, Tensor):
        return [data]
    parts = data.values() if isinstance(data, dict) else data if isinstance(data, tuple | list) else ()
    return [tensor for part in parts for tensor in tensors(part)]
