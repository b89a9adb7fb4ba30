"""Which names are those of models on the hub, and which are folders that were misspelt. Needs no torch."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from slimline.errors import DataError

ALIKE = 0.85  # of two names: closer than most names on the hub are to each other


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
