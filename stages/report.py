"""Say what each stage gained and cost: metrics, curves, decisions and facts -> report/."""

from slimline import params
from slimline.report import page, study
from slimline.stage import Stage, run


def main(stage: Stage) -> None:
    """Write the report on every stage of params.yaml's export list."""
    page.write(study.load(stage.params, params.read()))
    print(f"report: {page.FOLDER / 'index.html'}")


if __name__ == "__main__":
    run("report", main)
