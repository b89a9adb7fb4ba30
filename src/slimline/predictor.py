"""One face over every runtime: named arrays in, named arrays out. Imports no torch."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from slimline import manifest, plugins
from slimline.errors import InputError
from slimline.runtime_choice import AUTO, DEFAULT, measured_with

Arrays = dict[str, NDArray[Any]]


class Runtime(Protocol):
    """What a runtime plug-in offers: built from an export directory, run on checked arrays, closed.

    A remote one takes its address as ``url`` too, and may have ``is_ready() -> bool``: whether it would answer now.
    """

    def __init__(self, directory: Path, threads: int | None) -> None: ...

    def run(self, inputs: Arrays) -> Arrays:
        """Return {output name: array} for inputs that fit the signature."""

    def close(self) -> None:
        """Give back what the runtime holds."""


class Predictor:
    """An exported model, ready to answer.

    ``directory`` is a sealed export (``exports/STAGE``) or a release, whose last stage answers. ``runtime="auto"``
    takes the one that the release was measured with, of an export onnxruntime; an address such as
    ``triton+grpc://host:8001/model`` names the plug-in before the ``+`` and is handed to it. ``threads`` limits the
    runtime's own threads (None: its default). ``revision`` is the digest of the directory. Raises ArtifactError when a
    file of it is damaged.
    """

    def __init__(self, directory: Path | str, runtime: str = "auto", threads: int | None = None) -> None:
        self.directory = Path(directory)
        self.revision: str = manifest.verify(self.directory)
        folder = self.directory
        name = DEFAULT if runtime == AUTO else runtime
        if (folder / "card.json").is_file():
            card = manifest.read_json(folder / "card.json")
            folder = folder / "chain" / card["last"]
            name = measured_with(card, card["last"]) if runtime == AUTO else runtime
        self.signature: dict[str, Any] = manifest.read_json(folder / "signature.json")
        address = {}
        if "://" in runtime:
            name, address = runtime.partition("+")[0], {"url": runtime}
        self.runtime_name = name
        self.runtime: Runtime = plugins.find("runtimes", name)(folder, threads, **address)

    def predict(self, inputs: Arrays) -> Arrays:
        """Return {output name: array} for {input name: array with the batch first}.

        Raises InputError naming the input that is missing, unknown, of another dtype or shape, not finite, or out of
        its range.
        """
        self.check(inputs)
        return self.runtime.run(inputs)

    def check(self, inputs: Arrays) -> None:
        """Raise InputError unless ``inputs`` fit the signature."""
        expected = self._expected
        if unknown := inputs.keys() - expected.keys():
            raise InputError(f"input {min(unknown)!r} is unknown; the model takes {', '.join(expected)}")
        axes: dict[str, int] = {}
        most: dict[str, int] = self.signature.get("axes", {})
        for name, (dtype, shape, span) in expected.items():
            if name not in inputs:
                raise InputError(f"input {name!r} is missing")
            if mistake := _mistake(inputs[name], dtype, shape, axes, span):
                raise InputError(f"input {name!r}: {mistake}")
        for axis, size in axes.items():
            if size > most.get(axis, size):
                raise InputError(f"axis {axis!r}: {size}, at most {most[axis]} is taken")

    @cached_property
    def _expected(self) -> dict[str, tuple[np.dtype[Any], tuple[int | str, ...], tuple[int, int] | None]]:
        return {
            spec["name"]: (np.dtype(spec["dtype"]), tuple(spec["shape"]), spec.get("range"))
            for spec in self.signature["inputs"]
        }

    def close(self) -> None:
        """Release the runtime's memory and threads."""
        self.runtime.close()


def _mistake(
    array: Any, dtype: np.dtype[Any], shape: tuple[int | str, ...], axes: dict[str, int], span: tuple[int, int] | None
) -> str | None:
    """Return what is wrong with an array, or None; ``axes`` remembers the sizes of named axes over all inputs."""
    if not isinstance(array, np.ndarray):
        return f"expected an array, found {type(array).__name__}"
    if array.dtype != dtype:
        return f"dtype {array.dtype}, expected {dtype}"
    if array.ndim != len(shape):
        return f"{array.ndim} axes, expected {len(shape)}: {list(shape)}"
    for size, want in zip(array.shape, shape, strict=True):
        if size != (axes.setdefault(want, size) if isinstance(want, str) else want):
            return f"shape {list(array.shape)}, expected {list(shape)}"
    if array.size == 0:
        return f"empty, shape {list(array.shape)}"
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return "holds NaN or infinity"
    if span is not None:
        odd = next((each for each in (array.min(), array.max()) if not span[0] <= each <= span[1]), None)
        return None if odd is None else f"holds {odd}, expected numbers from {span[0]} to {span[1]}"
    return None
