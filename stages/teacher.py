"""Train the teacher, or take one that exists, or both: params.yaml's ``teacher`` -> artifacts/teacher."""

from torch import nn

from slimline import artifact, checkpoints, label_order, metrics, number_scale
from slimline.artifact import Artifact, Named
from slimline.errors import ArtifactError, ParamsError
from slimline.stage import Stage, run
from slimline.task import Classification


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
        stage.train(model, section.training, key="training", inputs=[None])
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


def measure(stage: Stage, model: nn.Module) -> None:
    """Print what a teacher that isn't trained here does on validation rows; at chance it is an error."""
    rows = stage.splits["validation"]
    out = metrics.outputs(model, rows)
    values = stage.task.metrics(out, rows.targets)
    task, where = stage.task, "params.yaml: teacher.weights"
    if isinstance(task, Classification):
        label_order.check(task.answer(out), rows.targets, task.labels, where)
    elif task.independent and task.labels:
        label_order.check_many(out, rows.targets, task.labels, where)
    elif task.numeric:
        number_scale.check(task.answer(out), rows.targets, where)
    print(f"teacher: as it is: {' '.join(f'{name}={value:.4f}' for name, value in values.items())}")


if __name__ == "__main__":
    run("teacher", main)
