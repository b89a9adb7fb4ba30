"""Models on the hub: which names are theirs, and which files `git clone` left out of a folder. Needs no torch."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from textwrap import shorten
from typing import Any

from slimline.errors import DataError

ALIKE = 0.85  # of two names: closer than most names on the hub are to each other
REASON = 160  # letters of what the hub says
POINTER = b"version https://git-lfs"  # what 'git clone' leaves of a large file where Git LFS isn't installed


def check_name(name: str, where: str = "") -> None:
    """Raise DataError, ``where`` first, where a name that is no folder can't be meant for the hub, or hardly is.

    Names there are OWNER/NAME, or NAME for a few. One that looks like a model's folder beside it is taken for that,
    unless the hub's cache has it.
    """
    given = Path(name)
    near = _neighbour(given)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or (near is not None and not _is_cached(name)):
        meant = f" Did you mean {str(near)!r}?" if near is not None else ""
        raise DataError(f"{where}{name}: no such folder.{meant} A model on the hub is called OWNER/NAME")


def fetch(name: str, file: str, where: str) -> Path:
    """Return one file of a model by its name on the hub, downloaded unless the cache has it.

    Raises DataError, ``where`` first, where the hub doesn't give it. It is asked once, since its own client asks an
    address that can't be reached for half a minute.
    """
    check_name(name, where)
    try:
        import huggingface_hub as client
    except ModuleNotFoundError as error:
        raise DataError(f"{where}{name}: no such folder; for names on the hub: pip install 'slimline[hf]'") from error
    try:
        if not isinstance(client.try_to_load_from_cache(name, file), str):
            client.get_hf_file_metadata(client.hf_hub_url(name, file))
        return Path(client.hf_hub_download(name, file))
    except Exception as error:  # offline, unknown, private: the hub raises many kinds
        reason = shorten(str(error), REASON, placeholder=" …")
        raise DataError(f"{where}{name}: no such folder, and the hub doesn't give it: {reason}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return what a JSON file of a model holds. Raises DataError naming it where it is damaged or a pointer."""
    content = path.read_bytes()
    try:
        found = json.loads(content)
    except ValueError as error:
        why = pointer(path) or f"{path}: not JSON ({error}); fetch or save it again"
        raise DataError(why) from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: a JSON object is expected, found {type(found).__name__}")
    return found


def pointer(path: Path) -> str:
    """Return what to say of a file, or of one beside others in a folder, that is a pointer of Git LFS; else ""."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            with file.open("rb") as opened:
                if opened.read(len(POINTER)) == POINTER:
                    return f"{file}: a pointer of Git LFS, not the file itself; run 'git lfs pull' in its folder"
    return ""


def _neighbour(given: Path) -> Path | None:
    """Return the folder beside where ``given`` would be that holds a model of nearly that name."""
    if not given.parent.is_dir():
        return None
    beside = {each.name.lower(): each for each in given.parent.iterdir() if (each / "config.json").is_file()}
    close = get_close_matches(given.name.lower(), list(beside), n=1, cutoff=ALIKE)
    return beside[close[0]] if close else None


def _is_cached(name: str) -> bool:
    try:
        from huggingface_hub import try_to_load_from_cache

        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except (ModuleNotFoundError, ValueError):  # ValueError: no name that the hub could have
        return False
