"""The command line: every command is found, help is quick, a mistake is one line."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from slimline import events
from slimline.cli import COMMANDS, app, main
from slimline.project import layout


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "slimline", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_of_its_own(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app([command, "--help"])
    assert not ended.value.code
    assert f" {command} " in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize("module", sorted(set(COMMANDS.values())))
def test_each_command_of_a_module_is_listed(module: str) -> None:
    registered = import_module(f"slimline.cli.{module}").app
    names = {each.name or each.callback.__name__ for each in registered.registered_commands}
    names |= {each.name for each in registered.registered_groups}
    assert names == {command for command, where in COMMANDS.items() if where == module}


def test_every_line_of_help_is_whole_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, ["--help"]).stdout
    lines = [line for line in shown.splitlines() if line.split()[:1] and line.split()[0] in COMMANDS]
    assert len(lines) == len(COMMANDS)
    assert [line for line in lines if "..." in line] == []


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv[1:] = ['--help']\nfrom slimline.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    )
    code += "print(sorted({'numpy', 'pydantic', 'onnxruntime', 'gto', 'dvc', 'torch', 'rich'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "command", [["events", "show"], ["events", "purge", "--id", "a"], ["labels", "import", "a.csv"]]
)
def test_commands_take_the_event_stores_own_default(
    command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(events, "DEFAULT_URL", f"sqlite:///{tmp_path}/moved.db")
    result = CliRunner().invoke(app, command)
    assert f"{tmp_path}/moved.db: there is none" in str(result.exception)


def test_an_unknown_command_is_named_with_its_near_miss() -> None:
    done = run("chekc")
    assert done.returncode == 2
    assert "No such command 'chekc'. Did you mean 'check'?" in done.stderr


def test_a_mistake_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["slimline", "show", "nowhere"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert (
        capsys.readouterr().err
        == "error: nowhere/manifest.json: missing; run 'dvc repro', or 'dvc pull' if it was pushed\n"
    )


@pytest.mark.parametrize(
    ("arguments", "size", "folder"),
    [
        (["--size", "64"], (64, 64), "."),
        (["--size=64", "elsewhere"], (64, 64), "elsewhere"),
        (["--size", "64", "elsewhere"], (64, 64), "elsewhere"),
        (["--size", "64", "48"], (64, 48), "."),
        (["--size=64", "48", "elsewhere"], (64, 48), "elsewhere"),
        (["--size", "64", "--recipe", "int8"], (64, 64), "."),
        ([], None, "."),
    ],
)
def test_one_number_is_a_square(
    arguments: list[str], size: tuple[int, int] | None, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, Path]] = []
    monkeypatch.setattr(layout, "lay_out", lambda where, *, own, **_: asked.append((own.size, where)) or [])
    with pytest.raises(SystemExit) as ended:
        app(["init", "--model", "resnet", "--data", "pictures", *arguments])
    assert not ended.value.code
    assert asked == [(size, Path(folder))]
