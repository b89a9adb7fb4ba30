"""Find a model's tokenizer: in its folder, on the hub, or made from an older vocabulary. Needs no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from slimline import hub, manifest, trimming
from slimline.errors import DataError

MADE = Path(".slimline/tokenizers")
FILE = "tokenizer.json"
PADDING = ("[PAD]", "<pad>", "<PAD>")


class TokenizerFile(NamedTuple):
    """A tokenizer.json, and the number that fills rows up."""

    file: Path
    pad_id: int


def find(source: str) -> TokenizerFile:
    """Return the tokenizer of a model's folder, of its name on the hub, or of a tokenizer.json itself.

    A folder with a vocabulary in another form (vocab.txt, spiece.model) gets a tokenizer.json by transformers, kept
    under .slimline/. Raises DataError naming ``source``.
    """
    given = Path(source)
    file = given if given.is_file() else given / FILE
    if not file.is_file():
        file = _converted(source) if given.is_dir() else hub.fetch(source, FILE, "tokenizer ")
    settings = _settings(file.parent, source)
    if not given.is_file():
        _check_size(file, settings, source)
    return TokenizerFile(file, _pad_id(file, settings))


def _check_size(file: Path, config: dict[str, Any], source: str) -> None:
    """Raise DataError where a tokenizer gives less than half of the tokens that its model has embeddings for."""
    size = config.get("vocab_size")
    if not isinstance(size, int):
        return
    pieces = len(trimming.numbers(document(file)))
    if pieces < size / 2:
        raise DataError(
            f"{source}: its tokenizer has {pieces:,} pieces and the model {size:,} (vocab_size in config.json): it is "
            "another model's, or not whole"
        )


def kind(source: str) -> str:
    """Return what kind of tokenizer a model has: WordPiece, BPE, Unigram, WordLevel."""
    return trimming.kind(document(find(source).file))


def document(file: Path) -> dict[str, Any]:
    """Return what a tokenizer.json holds. Raises DataError naming it where it is none."""
    found = hub.read_json(file)
    if "vocab" not in (found.get("model") or {}):
        raise DataError(f"{file}: no vocabulary in it (model.vocab); save it by tokenizer.save_pretrained")
    return found


def _converted(folder: str) -> Path:
    files = sorted(path for path in Path(folder).iterdir() if path.suffix in {".txt", ".model", ".json"})
    key = hashlib.sha256("".join(manifest.sha256(path) for path in files).encode()).hexdigest()[:32]
    made = MADE / key / FILE
    if made.is_file():
        return made
    try:
        from transformers import AutoTokenizer
    except ModuleNotFoundError as error:
        raise DataError(f"{folder}: no {FILE}; to make one: pip install 'slimline[hf]'") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        text = tokenizer.backend_tokenizer.to_str()
    except Exception as error:  # transformers raises many kinds
        raise DataError(f"{folder}: no tokenizer that can be read: {' '.join(str(error).split())[:200]}") from error
    wanted = sorted(set(tokenizer.vocab_files_names.values()))
    if not any(Path(folder, name).is_file() for name in wanted):  # transformers makes one without words then
        raise DataError(
            f"{folder}: no tokenizer in it ({', '.join(wanted)}); save the model's beside it: tokenizer.save_pretrained"
        )
    manifest.write_text(made, text)
    config = Path(folder, "config.json")
    if config.is_file():
        manifest.write_text(made.with_name("config.json"), config.read_text(encoding="utf-8"))
    return made


def _settings(folder: Path, source: str) -> dict[str, Any]:
    """Return the model's config.json beside its tokenizer, or nothing."""
    path = folder / "config.json"
    if not path.is_file() and Path(source).is_dir():
        path = Path(source, "config.json")
    return hub.read_json(path) if path.is_file() else {}


def _pad_id(file: Path, config: dict[str, Any]) -> int:
    """Return what fills rows up: as the model's configuration says, the tokenizer's padding, or its [PAD]."""
    if isinstance(config.get("pad_token_id"), int):
        return int(config["pad_token_id"])
    held = document(file)
    if held.get("padding"):
        return int(held["padding"]["pad_id"])
    words = held["model"]["vocab"]
    known = {token["content"]: token["id"] for token in held.get("added_tokens", [])}
    for token in PADDING:
        if token in known or (isinstance(words, dict) and token in words):
            return int(known[token] if token in known else words[token])
    raise DataError(f"{file}: no padding token in it, nor pad_token_id in a config.json beside it")
