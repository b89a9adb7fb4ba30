"""Does a release come from the commit that is checked out? Needs git, no torch.

A release is an output of DVC: dvc.lock, which is committed, holds DVC's own hash of its folder. That hash, computed
here from the folder's bytes, ties a release to HEAD; its revision, which has no place in dvc.lock, follows from the
same bytes.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from slimline import manifest, params
from slimline.errors import ReleaseError

LOCK = "dvc.lock"
NAMED = 3  # files in one error


def head() -> str:
    """Return the commit that is checked out in the working directory. Raises ReleaseError where there is none."""
    hint = "promote in the repository that the release was made in, once it has a commit"
    return _git("rev-parse", "HEAD", hint=hint).strip()


def check(release: Path) -> None:
    """Raise ReleaseError unless ``release`` comes from HEAD of the repository in the working directory.

    It doesn't when the tree is dirty, when dvc.lock at HEAD records other bytes, or when params.yaml at HEAD is not
    what the release was made with.
    """
    if dirty := [line[3:] for line in _git("status", "--porcelain").splitlines()]:
        more = f" and {len(dirty) - NAMED} more" if len(dirty) > NAMED else ""
        them = "it" if len(dirty) == 1 else "them"
        raise ReleaseError(
            f"{', '.join(dirty[:NAMED])}{more}: not committed, and a version is a commit; "
            f"commit, stash or ignore {them} first"
        )
    _check_lock(release)
    made_with = manifest.read_json(release / "card.json")["params"]
    at_head = yaml.safe_load(_git("show", f"HEAD:./{params.FILE}", hint="commit it first"))
    if _plain(at_head) != _plain(made_with):
        key = next(
            key for key in sorted({*at_head, *made_with}) if _plain(at_head.get(key)) != _plain(made_with.get(key))
        )
        raise ReleaseError(
            f"{params.FILE}: {key}: at HEAD it is not what {release} was made with; run 'dvc repro release' and commit"
        )


def named(release: Path) -> dict[str, str]:
    """Return what a document that was measured on ``release`` calls it: its revision, and DVC's hash as in dvc.lock."""
    return {"revision": manifest.digest(release), "dvc": dvc_hash(release)}


def dvc_hash(folder: Path) -> str:
    """Return DVC's hash of a folder: the md5 of the JSON list of its files' md5 sums, sorted by path."""
    files = sorted(
        ((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file()),
        key=lambda each: tuple(each[0].split("/")),
    )
    listing = [{"md5": _md5(path), "relpath": name} for name, path in files]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _check_lock(release: Path) -> None:
    stages = yaml.safe_load(_git("show", f"HEAD:./{LOCK}", hint="run 'dvc repro release' and commit"))["stages"]
    outs = {out["path"]: out.get("md5") for stage in stages.values() for out in stage.get("outs", [])}
    found = dvc_hash(release)
    if found not in outs.values():
        path = "release" if "release" in outs else release.name
        recorded = f"{LOCK} at HEAD records {path} as {outs[path]}" if path in outs else f"{LOCK} has no release"
        raise ReleaseError(
            f"{release}: {found}, but {recorded}; run 'dvc repro release' and commit {LOCK}, or "
            "'dvc checkout' what it records"
        )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _plain(document: Any) -> Any:
    """Return data as it is after a way through JSON, whose keys are strings."""
    return json.loads(json.dumps(document))


def _git(*arguments: str, hint: str = "") -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ReleaseError("git is not installed; a release is promoted from its repository") from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise ReleaseError(f"git {' '.join(arguments)}: {said}" + f"; {hint}" * bool(hint))
    return done.stdout
