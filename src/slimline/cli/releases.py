"""Commands on releases: gate, promote, rollback, status."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(rich_markup_mode=None)


@app.command()
def gate(
    release: Annotated[Path | None, typer.Option(help="Judge this release instead of metrics/benchmark.json.")] = None,
) -> None:
    """Print the verdict of the budget, line by line.

    Each line has its interval; exit 1 when one fails.
    """
    from slimline.gate import judge_measured, judge_release, lines

    checks = judge_measured() if release is None else judge_release(release)
    print("\n".join(lines(checks)) or "the budget asks for nothing")
    if not all(each.ok for each in checks):
        raise typer.Exit(1)


@app.command()
def promote(
    release: Annotated[Path, typer.Argument(help="The release directory.")] = Path("release"),
    *,
    stage: Annotated[str, typer.Option(help="The stage to put it in, such as prod.")],
    name: Annotated[Optional[str], typer.Option(help="What it is registered as; the task's name.")] = None,  # noqa: UP045
    reason: Annotated[str, typer.Option(help="Written into the tags.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Though the gate fails; asks for --reason.")] = False,
    push: Annotated[bool, typer.Option("--push", help="Push the tags to origin.")] = False,
) -> None:
    """Register a release as a version and put it in a stage.

    The version is HEAD's, kept in GTO's git tags. Exit 1 where the gate fails.
    """
    from slimline import gate, promotion
    from slimline.deployment import short

    checks, version = promotion.promote(release, stage, name=name, force=force, reason=reason, push=push)
    print("\n".join(gate.lines(checks)) or "the budget asks for nothing")
    if said := gate.trial(release):
        print(f"{release}: {said}")
    if version is None:
        print(f"not promoted: it {gate.summary(checks)}; --force --reason TEXT does it all the same")
        raise typer.Exit(1)
    print(f"{stage}: {version.version}, revision {short(version.revision or '?')}, commit {version.commit[:7]}")
    if not push:
        print("the tags are in this repository only; 'git push --tags' shares them")


@app.command()
def rollback(
    stage: Annotated[str, typer.Option(help="The stage to roll back, such as prod.")],
    to: Annotated[Optional[str], typer.Option(help="A version such as v0.0.1; the one before.")] = None,  # noqa: UP045
    name: Annotated[Optional[str], typer.Option(help="What it is registered as, if there are several.")] = None,  # noqa: UP045
    reason: Annotated[str, typer.Option(help="Written into the tag.")] = "",
    *,
    push: Annotated[bool, typer.Option("--push", help="Push the tag to origin.")] = False,
) -> None:
    """Put the version before, or another, back in a stage.

    --to names any that is registered.
    """
    from slimline import promotion
    from slimline.deployment import short

    version = promotion.rollback(stage, name or promotion.only_name(), to=to, reason=reason, push=push)
    revision = short(version.revision or "?")
    print(f"{stage}: {version.version}, revision {revision}, commit {version.commit[:7]}")
    if not push:
        print("the tag is in this repository only; 'git push --tags' shares it")


@app.command()
def status(
    deployment: Annotated[Optional[Path], typer.Option(help="A deployment folder to look into too.")] = None,  # noqa: UP045
    name: Annotated[Optional[str], typer.Option(help="Only what is registered as this.")] = None,  # noqa: UP045
) -> None:
    """Show which version is in which stage.

    --deployment shows what a folder of releases runs, too.
    """
    from slimline import promotion
    from slimline.deployment import Deployment
    from slimline.deployment import lines as deployed

    if deployment is not None:
        print("\n".join(deployed(Deployment(deployment))))
    if deployment is None or promotion.is_repository():  # where releases run there needs to be no git
        found = [name] if name else promotion.names()
        if not found:
            print("no release is registered here")
        for each in found:
            print("\n".join(promotion.lines(promotion.read(each))))
