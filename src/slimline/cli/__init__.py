"""The ``slimline`` command. Exit 0: fine; 1: a verdict against you; 2: bad input, said in one line.

Each group of commands is a module here, imported only when one of its commands runs or help is asked for; what a
command needs is imported inside it, so that ``slimline --help`` answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from slimline import ending

COMMANDS = {
    "init": "project",
    "check": "project",
    "plugins": "project",
    "show": "inspection",
    "lint": "inspection",
    "sensitivity": "inspection",
    "gate": "releases",
    "promote": "releases",
    "rollback": "releases",
    "status": "releases",
    "pack": "deploying",
    "unpack": "deploying",
    "deploy": "deploying",
    "predict": "deploying",
    "serve": "serving",
    "triton": "triton_repository",
    "labels": "events",
    "events": "events",
    "monitor": "monitoring",
    "probe": "monitoring",
    "window": "monitoring",
    "blame": "blaming",
    "undo": "blaming",
}  # command: the module of this package that holds it, in help's order


class _Commands(TyperGroup):
    """Finds a command in its module."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        names: dict[str, Any] = dict.fromkeys(COMMANDS)
        self.commands = names  # help and near misses read them

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"slimline.cli.{COMMANDS[cmd_name]}")
        return _group(module.app).commands[cmd_name]


def _group(app: typer.Typer) -> TyperGroup:
    app.callback()(_nothing)  # a Typer with one command would be that command
    return get_group(app)


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Makes trained PyTorch models small and fast in a DVC pipeline, and measures what each stage gained and cost.",
)


@app.callback()
def _nothing() -> None:
    pass


def main() -> None:
    """Run the command line; errors end it in one line on stderr and exit 2."""
    with ending.in_one_line():
        app()
