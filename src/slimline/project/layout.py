"""Lays a project into a repository: what is shipped as it is, and params.yaml for a task or for one's own data."""

from __future__ import annotations

import difflib
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from slimline.errors import ParamsError, near_miss

if TYPE_CHECKING:
    from slimline.project.own_weights import Weights

RECIPES = ("int8", "small", "smallest")
HERE = Path(__file__).parent
IGNORED = (".slimline/", "/fingerprints", "/events.db*", "/window.html", ".*.tmp", "__pycache__/")
DEPLOYED = (  # by its parts: what else lies in a folder of that name is nothing of ours
    "/deploy/.lock", "/deploy/current", "/deploy/history.jsonl", "/deploy/releases/",
)  # fmt: skip
LABELS_SHOWN = 10
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


@dataclass(frozen=True)
class Own:
    """A user's own model (a folder, or a name on the hub) and data; columns that aren't named are found.

    ``archive`` holds the images that a table lists, where they don't lie beside it; ``size`` [height, width] is what
    images are brought to, by their own size without it. ``weights`` is a file for the model, in place of its own.
    """

    model: str
    data: Path
    text: tuple[str, ...] = ()
    label: str | None = None
    max_length: int | None = None
    split: str | None = None
    group: str | None = None
    archive: Path | None = None
    answer: str | None = None
    separator: str | None = None
    size: tuple[int, int] | None = None
    weights: Path | None = None

    @cached_property
    def held(self) -> Weights | None:
        """What the file ``weights`` holds."""
        from slimline.project.own_weights import Weights

        return Weights(self.weights) if self.weights is not None else None


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
    files[Path("params.yaml")] = (
        params_text(task, recipe, limit) if own is None else own_params_text(own, folder, recipe, limit)
    )
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
    done += _notes(files[Path("params.yaml")], task, own)
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


def _notes(text: str, task: str, own: Own | None) -> Iterator[str]:
    """Yield what was found in the data, and what to look at in params.yaml, whose content is ``text``."""
    if own is not None:
        document = yaml.safe_load(text)
        labels = document["task"]["args"].get("labels", [])
        yield f"found: {_found(document['task'])}"
        if size := document["task"]["args"].get("size"):
            yield f"size: images are brought to {size[0]}×{size[1]} pixels; --size H W takes another"
        yield from _left_out(document["task"]["name"], own.data)
        if document["task"]["name"] == "text":
            from slimline.project import own_head, own_params

            if own.held is None:
                yield f"found: {own.model} {own_head.of(labels, own_params.configuration(own.model)).said}"
        if own.held is not None:
            model = document["teacher"]["model"]
            if model["name"] == "hf-encoder":  # its folder is told from within the project
                model["args"]["source"] = own.model
            trained = document["teacher"]["training"]  # None: the file was found whole
            missing = own.held.lacks(**model) if trained else []
            yield f"found: {own.held.said(missing, labels, model['args'].get('pooling'))}"
        if _trains_in_bf16(document):
            yield (
                "params.yaml: trainings have precision: bf16, since this machine computes it fast; take it out for "
                "others that don't"
            )
    elif task == "fashion-mnist":
        yield "data: set task.args.source in params.yaml to a folder with the four Fashion-MNIST idx.gz files"


def _left_out(task: str, data: Path) -> Iterator[str]:
    """Yield what of the data is no part of the task."""
    from slimline.labelled_rows import PARTS
    from slimline.project import own_data

    if task == "images":
        yield from (f"found: {data}: {note}" for note in own_data.left_out(data))
    elif left := own_data.unused(data):
        named = ", ".join(str(path) for path in left)
        yield f"found: {named}: left out, since a table in a folder is called {', '.join(PARTS)}"


def _trains_in_bf16(document: dict[str, Any]) -> bool:
    """Return whether a stage on the way to what is exported trains in bfloat16."""
    from slimline import pipeline

    sections = [document[name] for name in pipeline.ancestors(document, pipeline.last(document))]
    trainings = [each.get("training") or each.get("recovery") or {} for each in sections]
    return any(each.get("precision") == "bf16" and each["epochs"] for each in trainings)


def _found(task: dict[str, Any]) -> str:
    """Return which columns were taken for what, and what a label is, in one line."""
    args = task["args"]
    text = args.get("text", [])
    columns = {"text": ", ".join([text] if isinstance(text, str) else text)}
    columns |= {name: args[name] for name in ("label", "split", "group") if name in args}
    labels = ", ".join(args.get("labels", [])[:LABELS_SHOWN]) + (
        ", …" if len(args.get("labels", [])) > LABELS_SHOWN else ""
    )
    between = f", {args['separator']!r} between them" if "separator" in args else ""
    answers = {"one": f"one of {len(args.get('labels', []))} labels a row ({labels})",
               "many": f"any of {len(args.get('labels', []))} labels a row ({labels}){between}",
               "number": f"a number a row, right within {args.get('tolerance')}"}  # fmt: skip
    named = [f"column {column!r} as {name}" for name, column in columns.items() if column]
    return "; ".join([task["name"], *named, answers[args.get("answer", "one")]])


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
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120)


def own_params_text(own: Own, folder: Path, recipe: str, limit: int | None) -> str:
    """Return params.yaml for one's own model and data: a table of texts; images in class folders, or listed in one."""
    from slimline.project import own_data, own_params

    columns = own_data.Columns(own.text, own.label, own.split, own.group, own.answer, own.separator)
    if own_params.is_of_images(own.model) or own_data.classes(own.data) is not None:
        _refuse(own, "images", text="--text", max_length="--max-length")
        described = own_data.describe_images(own.data, columns)
        document = own_params.image_params(own.model, described, recipe, limit, _size(own), own.held)
        document["task"]["args"]["data"] = _from(folder, own.data)
        if own.archive is not None:
            document["task"]["args"]["archive"] = _from(folder, own.archive)
    else:
        _refuse(own, "texts", archive="--archive", size="--size")
        described = own_data.describe(own.data, columns)
        model = _from(folder, Path(own.model)) if Path(own.model).exists() else own.model
        data: Any = {part: _from(folder, path) for part, path in own_data.find(own.data).items()}
        document = own_params.text_params(own.model, described, recipe, limit, own.held)
        document["task"]["args"] |= {"data": data.get("", data), "tokenizer": model}
        if own.max_length is not None:
            own_params.check_length(own.model, own.max_length)
            document["task"]["args"]["max_length"] = own.max_length
        document["teacher"]["model"]["args"]["source"] = document["teacher"]["weights"] = model
    if own.weights is not None:
        document["teacher"]["weights"] = _from(folder, own.weights)
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)


def _size(own: Own) -> tuple[int, int] | None:
    """Return the size that was asked for, or the images' own; None: the network of a library brings its own."""
    from slimline.project import image_size
    from slimline.project.own_params import LIBRARIES

    if own.size is not None:
        if min(own.size) < 1:
            raise ParamsError(f"--size: {own.size[0]} {own.size[1]}: height and width in pixels are expected")
        return own.size
    if own.model.startswith(LIBRARIES):
        return None
    side = image_size.chosen(own.model, own.data, own.archive)
    return side, side


def _refuse(own: Own, kind: str, **options: str) -> None:
    """Raise ParamsError for the first of ``options`` {field: option} that is given, though ``kind`` doesn't take it."""
    for name, option in options.items():
        if getattr(own, name):
            raise ParamsError(f"{option}: {kind} don't take it; {own.model} on {own.data} are {kind}")


def _from(folder: Path, path: Path) -> str:
    """Return a path as it is written from within the project: relative, unless it was given as absolute elsewhere."""
    whole, root = path.resolve(), folder.resolve()
    if whole.is_relative_to(root):
        return str(whole.relative_to(root))
    return str(path) if path.is_absolute() else os.path.relpath(whole, root)


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
