"""Tiny encoders and tables of texts, made on the spot: random weights, a vocabulary of a few words."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

WORDS = {
    "sport": ("goal", "match", "team", "coach", "score", "league", "player", "season"),
    "money": ("bank", "rate", "loan", "stock", "market", "bond", "price", "profit"),
    "science": ("cell", "atom", "light", "energy", "planet", "theory", "orbit", "gene"),
}
COMMON = ("the", "a", "of", "in", "and", "new", "said", "last", "year", "was")
LABELS = tuple(sorted(WORDS))


def texts(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return (text, label) pairs; a text has common words and some of its label's own."""
    chance = random.Random(seed)
    found = []
    for index in range(count):
        label = LABELS[index % len(LABELS)]
        words = [chance.choice(WORDS[label] if chance.random() < 0.4 else COMMON) for _ in range(chance.randint(5, 14))]
        found.append((" ".join([*words, WORDS[label][index % 8], COMMON[index % 10]]), label))
    return found


def write_table(path: Path, rows: Sequence[Sequence[Any]], names: Sequence[str] = ("text", "label")) -> Path:
    """Write rows as CSV or TSV, by the path's suffix."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow(names)
        writer.writerows(rows)
    return path


def write_tokenizer(folder: Path) -> None:
    """Write a WordPiece tokenizer.json over the words above, with [CLS] and [SEP] around a text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*(word for each in WORDS.values() for word in each), *COMMON, *letters, *(f"##{each}" for each in letters)]
    vocabulary = {token: at for at, token in enumerate(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106  (no password)
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast",
                                                              "pad_token": "[PAD]"}))  # fmt: skip


def configuration(**changes: Any) -> Any:
    """Return the configuration of a BERT of two layers, width 32."""
    from transformers import BertConfig

    sizes: dict[str, Any] = {
        "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": 32, "pad_token_id": 0,
    }  # fmt: skip
    return BertConfig(**sizes | changes)


def write_encoder(folder: Path) -> Path:
    """Save a BERT without a head, with its tokenizer, as transformers does."""
    from transformers import BertModel

    BertModel(configuration()).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_family(folder: Path, family: str, kind: str, **more: Any) -> str:
    """Save a small model of a family, with a tokenizer; ``kind`` is Model or ForSequenceClassification."""
    import transformers

    configuration = getattr(transformers, f"{family}Config")(
        vocab_size=96, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=66, pad_token_id=0, **more,
    )  # fmt: skip
    getattr(transformers, f"{family}{kind}")(configuration).save_pretrained(folder)
    write_tokenizer(folder)
    return str(folder)


@contextmanager
def text_project(root: Path) -> Iterator[Any]:
    """Work in ``root``, with an encoder in ``model`` and 240 labelled texts in t.csv; yield their task, prepared."""
    import torch

    from slimline.tasks.text import text

    torch.manual_seed(0)
    write_encoder(root / "model")
    write_table(root / "t.csv", texts(240))
    with chdir(root):
        task = text(data="t.csv", tokenizer="model", labels=list(LABELS), max_length=16)
        task.splits()
        yield task
