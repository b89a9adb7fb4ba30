"""Hooks that stay on layers for as long as a ``with`` lasts, to see what the layers read and give while data runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from slimline.task import call

if TYPE_CHECKING:
    from slimline.method import Batches


@contextmanager
def before(
    model: nn.Module, names: Iterable[str], see: Callable[..., Any], *, with_kwargs: bool = False
) -> Iterator[None]:
    """Call ``see(name, layer, args)`` before each named layer of ``model`` runs; what it returns stands for ``args``.

    With ``with_kwargs`` it is ``see(name, layer, args, kwargs)``, as of torch's own hooks. The empty name is the model.
    """
    with ExitStack() as hooks:
        for name in names:
            layer = model.get_submodule(name)
            hooks.enter_context(layer.register_forward_pre_hook(partial(see, name), with_kwargs=with_kwargs))
        yield


@contextmanager
def after(
    model: nn.Module, names: Iterable[str], see: Callable[..., Any], *, with_kwargs: bool = False
) -> Iterator[None]:
    """Call ``see(name, layer, args, out)`` after each named layer of ``model`` ran; what it returns stands for ``out``.

    With ``with_kwargs`` it is ``see(name, layer, args, kwargs, out)``.
    """
    with ExitStack() as hooks:
        for name in names:
            layer = model.get_submodule(name)
            hooks.enter_context(layer.register_forward_hook(partial(see, name), with_kwargs=with_kwargs))
        yield


def see_inputs(
    model: nn.Module, names: Iterable[str], batches: Batches, see: Callable[[str, nn.Module, tuple[Tensor, ...]], None]
) -> None:
    """Put calibration data through ``model``, in evaluation mode from now on, and show ``see`` the layers' inputs."""
    model.eval()
    with before(model, names, see):
        for inputs, _ in batches():
            call(model, inputs)
