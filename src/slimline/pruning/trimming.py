"""A tokenizer without the pieces that no training text has. Numbers stay what they were. Needs no torch.

A word that needs one of them falls into shorter pieces, at last into characters, so no text becomes unknown. WordPiece
takes the longest piece that fits (Wu et al. 2016, arXiv:1609.08144), byte-pair encoding merges in order of rank
(Sennrich et al. 2016, arXiv:1508.07909), Unigram takes the most probable path (Kudo 2018, arXiv:1804.10959): the
training texts keep the tokens they had, as long as the pieces that lead to theirs stay.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection
from typing import Any

from slimline.errors import DataError

KINDS = ("BPE", "Unigram", "WordPiece")
GONE = "\U0010ffff"  # no character: what a piece is called that no text has


def kind(document: dict[str, Any]) -> str:
    """Return the kind of a tokenizer.json's content."""
    model = document["model"]
    return str(model.get("type") or ("BPE" if "merges" in model else "WordPiece"))


def trimmed(document: dict[str, Any], used: Collection[int], where: str) -> dict[str, Any]:
    """Return tokenizer.json's content without the pieces that neither ``used`` numbers nor a fallback need.

    Raises DataError, ``where`` first, for a kind of tokenizer that isn't one of ``KINDS``.
    """
    model = document["model"]
    if kind(document) not in KINDS:
        raise DataError(f"{where}: vocabulary: train works on {', '.join(KINDS)}, this tokenizer is {kind(document)}")
    added = {token["content"]: token["id"] for token in document.get("added_tokens") or []}
    if kind(document) == "Unigram":
        return _without_paths(document, set(used), added)
    words: dict[str, int] = model["vocab"]
    prefix = model.get("continuing_subword_prefix") or ""
    numbers = set(used)
    kept = {
        piece
        for piece, number in words.items()
        if number in numbers or piece in added or piece == model.get("unk_token") or _is_character(piece, prefix)
    }
    document = copy.deepcopy(document)
    if kind(document) == "BPE":
        kept, document["model"]["merges"] = _with_merges(kept, model["merges"], prefix)
    document["model"]["vocab"] = {piece: number for piece, number in words.items() if piece in kept} | added
    return document


def numbers(document: dict[str, Any]) -> list[int]:
    """Return the numbers that a tokenizer can give, in order."""
    words = document["model"]["vocab"]
    own = (
        words.values() if isinstance(words, dict) else (at for at, (piece, _) in enumerate(words) if piece[:1] != GONE)
    )
    return sorted({*own, *(token["id"] for token in document.get("added_tokens") or [])})


def unknown(document: dict[str, Any]) -> int | None:
    """Return the number of the unknown token, if a tokenizer has one."""
    model = document["model"]
    found = model.get("unk_id") if kind(document) == "Unigram" else model["vocab"].get(model.get("unk_token"))
    return None if found is None else int(found)


def _is_character(piece: str, prefix: str) -> bool:
    bare = piece.removeprefix(prefix) if prefix else piece
    return len(bare) == 1 or (bare.startswith("<0x") and bare.endswith(">"))


def _without_paths(document: dict[str, Any], used: set[int], added: Collection[str]) -> dict[str, Any]:
    """Return a Unigram tokenizer whose other pieces fit no text.

    A piece's number is its place, so the others keep theirs, and their scores: the least one decides what an unknown
    character costs.
    """
    needed = {*used, unknown(document)}
    document = copy.deepcopy(document)
    document["model"]["vocab"] = [
        [piece if at in needed or piece in added or _is_character(piece, "") else f"{GONE}{at:x}", score]
        for at, (piece, score) in enumerate(document["model"]["vocab"])
    ]
    return document


def _with_merges(kept: set[str], merges: list[Any], prefix: str) -> tuple[set[str], list[Any]]:
    """Return the pieces with all that any merge makes them from, and those merges in their order."""
    made: dict[str, list[tuple[str, str]]] = defaultdict(list)
    pairs = [(each.split(" ", 1) if isinstance(each, str) else each) for each in merges]
    for left, right in pairs:
        made[left + right.removeprefix(prefix)].append((left, right))
    whole, waiting = set(kept), list(kept)
    while waiting:
        for pair in made[waiting.pop()]:
            fresh = set(pair) - whole
            whole |= fresh
            waiting += fresh
    left_over = [each for each, (a, b) in zip(merges, pairs, strict=True) if a + b.removeprefix(prefix) in whole]
    return whole, left_over
