"""Commands on a project: lay it out, check it, list its plug-ins and their keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperCommand

app = typer.Typer(rich_markup_mode=None)


class Sized(TyperCommand):
    """A command whose ``--size N`` is ``--size N N``: click's options take as many values each time."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given: list[str] = []
        for at, each in enumerate(args):
            given.append(each)
            side = each.removeprefix("--size=") if each.startswith("--size=") else each
            asked = side != each or (at > 0 and args[at - 1] == "--size")
            if asked and side.isdecimal() and not (at + 1 < len(args) and args[at + 1].isdecimal()):
                given.append(side)
        return super().parse_args(ctx, given)


@app.command(cls=Sized)
def init(
    folder: Annotated[Path, typer.Argument(help="A git repository; DVC is set up when it isn't yet.")] = Path(),
    task: Annotated[str, typer.Option(help="digits or fashion-mnist.")] = "digits",
    recipe: Annotated[
        str, typer.Option(help="int8 trains no student; small leaves out factorize; smallest runs all.")
    ] = "smallest",
    limit: Annotated[Optional[int], typer.Option(min=1, help="Try the chain on so many rows a split.")] = None,  # noqa: UP045
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Yours: a folder of transformers or a hub's name; for images efficientnet-lite, timm:NAME, …"
        ),
    ] = None,
    data: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Yours: CSV, TSV, JSONL, Parquet; a folder with train.* and test.*; class folders; zip, tar; a table "
            "of images' paths."
        ),
    ] = None,
    weights: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Your weights for it: a state dict, a checkpoint of Lightning, safetensors."),
    ] = None,
    text: Annotated[Optional[list[str]], typer.Option(help="The column of texts; twice for pairs.")] = None,  # noqa: UP045
    label: Annotated[Optional[str], typer.Option(help="The column of labels.")] = None,  # noqa: UP045
    split: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A column that says train, validation or test; 'split' is found."),
    ] = None,
    group: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A column whose equal values never straddle splits (a patient, an author)."),
    ] = None,
    archive: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The zip, tar or folder that a table's images lie in; else beside the table."),
    ] = None,
    answer: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="What a label is: one, many (several in a cell) or number; found without it."),
    ] = None,
    separator: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="What stands between labels in one cell; a comma, ; or | is found."),
    ] = None,
    size: Annotated[
        Optional[tuple[int, int]],  # noqa: UP045
        typer.Option(
            metavar="H [W]", help="Bring images to this height and width, or to a square; by their own size without it."
        ),
    ] = None,
    max_length: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=4, help="Cut texts to so many tokens; most fit whole without it."),
    ] = None,
    *,
    update: Annotated[
        bool, typer.Option("--update", help="Only show how the laid-out files differ from this version's.")
    ] = False,
) -> None:
    """Lay dvc.yaml, params.yaml and stages/ into a repository."""
    from slimline.errors import ParamsError
    from slimline.project import layout

    if update:
        print("\n".join(layout.differences(folder)) or "no differences")
        return
    if (model is None) != (data is None):
        raise ParamsError(f"--{'data' if data is None else 'model'}: missing; your own work takes both")
    if weights is not None and model is None:
        raise ParamsError(f"--weights: {weights}: whose? --model says it")
    own = None
    if model is not None and data is not None:
        from slimline.project.own_project import Own

        own = Own(
            model, data, tuple(text or ()), label, max_length, split, group, archive, answer, separator, size, weights
        )
    for line in layout.lay_out(folder, task=task, recipe=recipe, limit=limit, own=own):
        print(line)


@app.command()
def check() -> None:
    """Validate params.yaml, plug-ins, data and models.

    All that can be known before anything trains, the order of stages included.
    """
    from slimline.check import check as run

    print("\n".join(run()))


@app.command(name="plugins")
def list_plugins(
    kind: Annotated[Optional[str], typer.Argument(metavar="[GROUP]", help="tasks, models, methods, …")] = None,  # noqa: UP045
    name: Annotated[Optional[str], typer.Argument(help="One of them: what it is, and its keys in params.yaml.")] = None,  # noqa: UP045
) -> None:
    """List every plug-in, or the keys of one.

    Each stands beside the distribution that it comes from.
    """
    from slimline import plugins

    if kind is not None and kind not in plugins.KINDS:
        from slimline.errors import PluginError, near_miss

        raise PluginError(
            f"{kind!r} is no kind of plug-in.{near_miss(kind, list(plugins.KINDS))} Kinds: {', '.join(plugins.KINDS)}"
        )
    if kind is not None and name is not None:
        from slimline import plugin_keys

        print("\n".join(plugin_keys.described(kind, name)))
        return
    rows = plugins.offers(kind)
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for row in rows:
        columns = "  ".join(row[column].ljust(widths[column]) for column in range(3))
        print(f"{columns}  {row.distribution} {row.version}")
