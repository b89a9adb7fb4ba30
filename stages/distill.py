"""Teach a student: params.yaml's ``distill`` -> artifacts/distill."""

from slimline import artifact
from slimline.artifact import Named
from slimline.stage import Stage, run


def main(stage: Stage) -> None:
    """Build a fresh student, or take the input model or some of its blocks, and train it on what the teachers know."""
    section = stage.section
    model, before, parent = stage.load(section.from_)
    named, edits = before.model, before.edits
    if section.model is not None:
        named, edits = Named(section.model.name, section.model.args), []
        model = artifact.build_model(stage.task, named, "params.yaml: distill.model")
    if section.keep is not None:
        model, edit = stage.keep(model, section.keep)
        edits = [*edits, edit]
    taught_by = stage.train(model, section.training, key="training", inputs=[parent], taught=section)
    stage.save(
        model,
        artifact.Artifact(
            task=before.task, model=named, edits=edits, stage=stage.name, parent=parent, teacher=taught_by
        ),
    )


if __name__ == "__main__":
    run("distill", main)
