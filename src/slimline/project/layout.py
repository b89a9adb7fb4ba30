"""Lays a project into a repository: what is shipped as it is, and params.yaml for a task or for one's own data."""

from __future__ import annotations

import difflib
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from slimline.errors import ParamsError, near_miss
from slimline.project import params_comments

if TYPE_CHECKING:
    from slimline.project.own_project import Own

RECIPES = ("int8", "small", "smallest")
HERE = Path(__file__).parent
IGNORED = (".slimline/", "/fingerprints", "/events.db*", "/window.html", ".*.tmp", "__pycache__/")
DEPLOYED = (  # by its parts: what else lies in a folder of that name is nothing of ours
    "/deploy/.lock", "/deploy/current", "/deploy/history.jsonl", "/deploy/releases/",
)  # fmt: skip
NO_TELEMETRY = "BENTOML_DO_NOT_TRACK=True"


def source() -> Path:
    """Return the folder that holds the shipped dvc.yaml and stages/: the package, or a checkout of the repository."""
    return HERE if (HERE / "dvc.yaml").is_file() else HERE.parents[2]


def tasks() -> dict[str, Path]:
    """Return the params.yaml to start from, by task."""
    return {"digits": HERE / "digits.yaml", "fashion-mnist": source() / "params.yaml"}


def shipped() -> dict[Path, Path]:
    """Return {path in the project: shipped file} of everything but params.yaml."""
    root = source()
    scripts = [path for path in sorted((root / "stages").iterdir()) if path.suffix in {".py", ".yaml"}]
    return {path.relative_to(root): path for path in [root / "dvc.yaml", *scripts]}


def lay_out(folder: Path, *, task: str = "digits", recipe: str, limit: int | None, own: Own | None = None) -> list[str]:
    """Write the project into ``folder`` and return lines that say what was done.

    ``task`` is one that comes with Slimline, unless ``own`` says what is to be worked on. Nothing that exists is
    overwritten: a file that differs is an error before anything is written.
    """
    words = ((recipe, list(RECIPES), "--recipe"), *(((task, list(tasks()), "--task"),) if own is None else ()))
    for word, known, option in words:
        if word not in known:
            raise ParamsError(f"{option}: {word!r} is not one of {', '.join(known)}.{near_miss(word, known)}")
    files = {path: file.read_text(encoding="utf-8") for path, file in shipped().items()}
    files[Path("params.yaml")], notes = _params(folder, task, recipe, limit, own)
    _check_repository(folder)
    for path, text in files.items():
        if (folder / path).exists() and (folder / path).read_text(encoding="utf-8") != text:
            way = (
                "edit it, or remove it and init again"
                if path == Path("params.yaml")
                else "'slimline init --update' shows how"
            )
            raise ParamsError(f"{folder / path}: exists and differs; {way}. Nothing was written")
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    shown = f"task {task}" if own is None else f"{own.model} on {own.data}"
    done = [f"wrote {len(files)} files for {shown}, recipe {recipe}"]
    if not (folder / ".dvc").is_dir():
        _dvc(folder, "init", "--quiet")
        _git(folder, "reset", "--quiet", "--", ".dvc", ".dvcignore")  # dvc adds its files to the index, nobody ours
        done.append("set up DVC")
    _dvc(folder, "config", "core.analytics", "false")
    _append(folder / ".gitignore", (*IGNORED, *DEPLOYED))
    _append(folder / ".env", (NO_TELEMETRY,))
    done.append("telemetry off: DVC in .dvc/config; .env sets BENTOML_DO_NOT_TRACK for what is started with it")
    done += notes
    done.append(f"next: {_add_command(folder)}")
    done.append("then: slimline check && dvc repro report release")
    return done


def _check_repository(folder: Path) -> None:
    if not (folder / ".git").exists():
        raise ParamsError(f"{folder}: not the top of a git repository; run 'git init' there first")
    if _git(folder, "rev-parse", "-q", "--verify", "HEAD").returncode:
        raise ParamsError(
            f"{folder}: no commit yet, and DVCLive asks for one; run 'git commit --allow-empty -m start' first"
        )


def _params(folder: Path, task: str, recipe: str, limit: int | None, own: Own | None) -> tuple[str, Iterable[str]]:
    """Return params.yaml's text, and lines on what is to be known of it."""
    if own is None:
        source = "data: set task.args.source in params.yaml to a folder with the four Fashion-MNIST idx.gz files"
        return params_text(task, recipe, limit), [source] if task == "fashion-mnist" else []
    from slimline.project import own_project  # it loads torch

    text = own_project.params_text(own, folder, recipe, limit)
    return text, own_project.notes(text, own)


def params_text(task: str, recipe: str, limit: int | None) -> str:
    """Return params.yaml for a task and a recipe."""
    text = tasks()[task].read_text(encoding="utf-8")
    if recipe == "smallest" and limit is None:
        return text
    document: dict[str, Any] = yaml.safe_load(text)
    document["limit"] = limit
    if recipe == "int8":
        document["quantize"]["from"] = "teacher"
        document["quantize"]["recovery"]["epochs"] = 0
        document["export"]["stages"] = ["teacher", "quantize"]
        document["budget"] = {key: document["budget"][key] for key in ("max_drop", "confidence")}
    if recipe == "small":
        document["export"]["stages"] = ["teacher", "distill", "prune", "quantize"]
    text = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120)
    return params_comments.commented(text, recipe)


def differences(folder: Path) -> list[str]:
    """Return a unified diff from the files in ``folder`` to this version's (params.yaml is yours and not compared)."""
    lines: list[str] = []
    for path, file in shipped().items():
        mine = (folder / path).read_text(encoding="utf-8").splitlines() if (folder / path).is_file() else []
        lines += difflib.unified_diff(
            mine, file.read_text(encoding="utf-8").splitlines(), str(path), f"{path} (shipped)", lineterm=""
        )
    return lines


def _dvc(folder: Path, *arguments: str) -> None:
    if shutil.which("dvc") is None:
        raise ParamsError("dvc: not installed; pip install 'slimline[train]'")
    subprocess.run(["dvc", *arguments], cwd=folder, check=True, env=os.environ | {"DVC_NO_ANALYTICS": "1"})


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=folder, check=False, capture_output=True, text=True)


def _add_command(folder: Path) -> str:
    """Return the command that adds what was laid out to git's index; git refuses to be told of what it ignores."""
    names = [".dvc", ".dvcignore", ".env", ".gitignore", *sorted({path.parts[0] for path in shipped()}), "params.yaml"]
    ignored = _git(folder, "check-ignore", *names).stdout.splitlines()
    elsewhere = [] if folder.resolve() == Path.cwd() else ["-C", str(folder)]
    return shlex.join(
        ["git", *elsewhere, "add", *(name for name in names if name not in ignored and (folder / name).exists())]
    )


def _append(path: Path, lines: tuple[str, ...]) -> None:
    present = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if missing := [line for line in lines if line not in present]:
        path.write_text("\n".join([*present, *missing]) + "\n", encoding="utf-8")
