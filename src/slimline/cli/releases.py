"""Commands on releases: judge, promote, move, deploy, score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None)


@app.command()
def gate(
    release: Annotated[Path | None, typer.Option(help="Judge this release instead of metrics/benchmark.json.")] = None,
) -> None:
    """Print the verdict of the budget with its intervals; exit 1 when a line fails."""
    from slimline import benchmark, manifest, params, pipeline
    from slimline.gate import judge, lines
    from slimline.release import FORMAT

    if release is not None:
        manifest.verify(release)
        card = manifest.read_json(release / "card.json")
        manifest.check_format(card, release / "card.json", FORMAT)
        measured, document, where = card["benchmark"], card["params"], f"{release}/card.json: budget"
    else:
        measured, document, where = manifest.read_json(benchmark.FILE), params.read(), f"{params.FILE}: budget"
    budget = params.parse(document).budget
    pipeline.check_order(document)
    checks = judge(budget, measured, pipeline.last(document), where=where)
    print("\n".join(lines(checks)) or "the budget asks for nothing")
    if not all(each.ok for each in checks):
        raise typer.Exit(1)
