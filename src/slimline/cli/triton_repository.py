"""The command that writes a Triton model repository."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer

from slimline.errors import ReleaseError

app = typer.Typer(rich_markup_mode=None)


class Backend(StrEnum):
    """Triton's backends that can run a release."""

    onnxruntime = "onnxruntime"
    python = "python"
    tensorrt = "tensorrt"


class Device(StrEnum):
    """Where instances run."""

    cpu = "cpu"
    gpu = "gpu"


@app.command()
def triton(
    releases: Annotated[list[Path], typer.Argument(help="Release directories: versions 1, 2, … of one model.")],
    out: Annotated[Path, typer.Option(help="The model repository, written whole or not at all.")],
    name: Annotated[Optional[str], typer.Option(help="The model's name; the task's by default.")] = None,  # noqa: UP045
    backend: Annotated[
        Backend, typer.Option(help="python is for servers without the others: ONNX Runtime in Triton's Python.")
    ] = Backend.onnxruntime,
    device: Annotated[Optional[Device], typer.Option(help="gpu for tensorrt, else cpu by default.")] = None,  # noqa: UP045
    versions: Annotated[str, typer.Option(help="Served: all, latest, or such as 1,3.")] = "all",
    instances: Annotated[int, typer.Option(min=1, help="Copies of the model on each device.")] = 1,
    threads: Annotated[Optional[int], typer.Option(min=1, help="Of an instance; as measured by default.")] = None,  # noqa: UP045
    max_batch: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Rows in a request or batch; the largest measured by default."),
    ] = None,
    queue_delay: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="Microseconds a request may wait for others; from the measurements by default."),
    ] = None,
) -> None:
    """Write a Triton model repository from releases.

    It holds the model, its preprocessing, and the ensemble of both.
    """
    from slimline.model_repository.repository import Options, write

    where = device or (Device.gpu if backend == Backend.tensorrt else Device.cpu)
    options = Options(name, backend.value, where.value, _served(versions), instances, threads, max_batch, queue_delay)
    print("\n".join(write(releases, out, options)))


def _served(versions: str) -> tuple[int, ...] | int:
    if versions in {"all", "latest"}:
        return int(versions == "latest")
    try:
        return tuple(sorted({int(each) for each in versions.split(",")}))
    except ValueError:
        raise ReleaseError(f"--versions {versions}: all, latest, or numbers such as 1,3") from None
