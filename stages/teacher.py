"""Train the teacher, or take its weights from a safetensors file: params.yaml's ``teacher`` -> artifacts/teacher."""

from pathlib import Path

from slimline import artifact
from slimline.artifact import Artifact, Named
from slimline.errors import ParamsError
from slimline.stage import Stage, run


def main(stage: Stage) -> None:
    """Build the model, load or train its weights, and save it as an artifact without edits."""
    section = stage.section
    named = Named(section.model.name, section.model.args)
    model = artifact.build_model(stage.task, named, "params.yaml: teacher.model")
    if section.weights:
        artifact.load_weights(model, Path(section.weights))
    if section.training:
        stage.train(model, section.training, key="training", inputs=[None])
    elif not section.weights:
        raise ParamsError("params.yaml: teacher.training: missing; give it, or teacher.weights")
    stage.save(model, Artifact(task=named, model=named, edits=[], stage=stage.name))


if __name__ == "__main__":
    run("teacher", main)
