"""Train the teacher, or take one that exists, or both: params.yaml's ``teacher`` -> artifacts/teacher."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray
from torch import nn

from slimline import artifact, checkpoints, label_order, metrics, number_head, number_scale
from slimline.artifact import Artifact, Named
from slimline.errors import ArtifactError, DataError, ParamsError
from slimline.stage import Stage, run
from slimline.task import Classification, tensors


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
        with _in_its_unit(stage, model, missing):
            stage.train(model, section.training, key="training", inputs=[None])
        if said := _at_chance(stage, model.eval()):
            print(f"teacher: trained, and no better than chance: {said}; train it longer or with more rows", flush=True)
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


def _at_chance(stage: Stage, model: nn.Module) -> str:
    """Return what to say of a teacher that knows nothing of its task, or an empty text."""
    try:
        _check(stage, metrics.outputs(model, stage.splits["validation"]), "params.yaml: teacher.training")
    except DataError as error:
        return str(error).partition("; ")[0]  # what may be wrong with a model from elsewhere isn't with this one
    return ""


def measure(stage: Stage, model: nn.Module) -> None:
    """Print what a teacher that isn't trained here does on validation rows; at chance it is an error."""
    rows = stage.splits["validation"]
    out = metrics.outputs(model, rows)
    _check(stage, out, "params.yaml: teacher.weights")
    values = stage.task.metrics(out, rows.targets)
    print(f"teacher: as it is: {' '.join(f'{name}={value:.4f}' for name, value in values.items())}")


def _check(stage: Stage, out: NDArray[Any], where: str) -> None:
    """Raise DataError where outputs on validation rows are no better than chance."""
    task, rows = stage.task, stage.splits["validation"]
    if isinstance(task, Classification):
        label_order.check(task.answer(out), rows.targets, task.labels, where)
    elif task.independent and task.labels:
        label_order.check_many(out, rows.targets, task.labels, where)
    elif task.numeric:
        number_scale.check(task.answer(out), rows.targets, where)


if __name__ == "__main__":
    run("teacher", main)
