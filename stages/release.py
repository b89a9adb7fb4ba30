"""Bundle what is deployed: exports and metrics -> release/, with goldens, references, card and verdict."""

from slimline import benchmark, gate, manifest, params, pipeline, release
from slimline.stage import Stage, run


def main(stage: Stage) -> None:
    """Judge the last stage by the budget and write the release, over budget or not: ``slimline gate`` says which."""
    document = params.read()
    measured = manifest.read_json(benchmark.FILE)
    last = pipeline.last(document)
    chain = [each for each in pipeline.ancestors(document, last) if each in stage.params.export.stages]
    verdict = gate.judge(stage.params.budget, measured, last)
    revision = release.build(
        release.FOLDER, pipeline.EXPORTS, chain, measured, document, stage.splits["validation"], verdict
    )
    print("\n".join(gate.lines(verdict)))
    print(f"release: {last}, revision {revision}")


if __name__ == "__main__":
    run("release", main)
