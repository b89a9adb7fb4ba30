"""Train the teacher, or take one that exists, or both: params.yaml's ``teacher`` -> artifacts/teacher."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray
from torch import nn

from slimline import artifact, metrics
from slimline.artifact import Artifact, Named
from slimline.errors import ArtifactError, ParamsError
from slimline.stage import Stage, run
from slimline.task import tensors
from slimline.teachers import chance, checkpoints, number_head
from slimline.training.processes import processes


def main(stage: Stage) -> None:
    """Build the model, load or train its weights, and save it as an artifact without edits."""
    section = stage.section
    named = Named(section.model.name, section.model.args)
    model = artifact.build_model(stage.task, named, "params.yaml: teacher.model")
    missing = list(model.state_dict())
    if section.weights:
        try:
            missing = checkpoints.load(model, section.weights)
        except ArtifactError as error:
            raise ParamsError(f"params.yaml: teacher.weights: {error}") from error
    if section.training:
        best: dict[str, NDArray[Any]] = {}
        with _in_its_unit(stage, model, missing):
            stage.train(
                model, section.training, key="training", inputs=[None], on_best=lambda out: best.update(out=out)
            )
        if processes().is_main_process:
            judge(stage, best["out"] if best else metrics.outputs(model, stage.splits["validation"]))
    elif not section.weights:
        raise ParamsError("params.yaml: teacher.training: missing; give it, or teacher.weights")
    elif missing:
        raise ParamsError(
            f"params.yaml: teacher.weights: {section.weights} has no {missing[0]} ({len(missing)} tensors in all): "
            "give teacher.training, which learns it"
        )
    else:
        measure(stage, model.eval())
    stage.save(model, Artifact(task=named, model=named, edits=[], stage=stage.name))


@contextmanager
def _in_its_unit(stage: Stage, model: nn.Module, new: list[str]) -> Iterator[None]:
    """Let a last layer that is ``new`` learn numbers in the unit of the training targets."""
    train = stage.splits["train"]  # the task knows its numbers once they are read
    task = stage.task
    if not task.numeric:
        yield
        return
    with number_head.lifted(model, tensors(train[slice(0, 4)][0]), new, task.centre, task.unit):
        yield


def judge(stage: Stage, out: NDArray[Any]) -> None:
    """Say of a teacher that was trained here when its outputs on validation rows are no better than guessing.

    The benchmark judges it again on test rows, for report and gate.
    """
    targets = stage.splits["validation"].targets
    if found := chance.of(stage.task, out, targets, "params.yaml: teacher.training"):
        print(f"teacher: {found.what}: {found.fact}; train it longer or with more rows", flush=True)


def measure(stage: Stage, model: nn.Module) -> None:
    """Print what a teacher that isn't trained here does on validation rows; no better than guessing is an error."""
    rows = stage.splits["validation"]
    out = metrics.outputs(model, rows)
    if found := chance.of(stage.task, out, rows.targets, "params.yaml: teacher.weights"):
        if found.margin <= 0:
            raise found
        print(f"teacher: {found.what}: {found.fact}", flush=True)
    values = stage.task.metrics(out, rows.targets)
    print(f"teacher: as it is: {' '.join(f'{name}={value:.4f}' for name, value in values.items())}")


if __name__ == "__main__":
    run("teacher", main)
