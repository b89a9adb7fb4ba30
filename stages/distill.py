"""Teach a student: params.yaml's ``distill`` -> artifacts/distill."""

from slimline import artifact
from slimline.artifact import Named
from slimline.stage import Stage, run


def main(stage: Stage) -> None:
    """Build a fresh student (or go on with the input model) and train it on the teacher's soft targets."""
    section = stage.section
    model, before, parent = stage.load(section.from_)
    named, edits = before.model, before.edits
    if section.model is not None:
        named, edits = Named(section.model.name, section.model.args), []
        model = artifact.build_model(stage.task, named, "params.yaml: distill")
    taught_by = stage.train(
        model, section.training, key="training", inputs=[parent], loss=section.loss, teacher=section.teacher
    )
    stage.save(
        model,
        artifact.Artifact(
            task=before.task, model=named, edits=edits, stage=stage.name, parent=parent, teacher=taught_by
        ),
    )


if __name__ == "__main__":
    run("distill", main)
