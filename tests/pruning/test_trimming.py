"""A trimmed tokenizer: the texts it was made for keep their tokens, others split into shorter pieces."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from slimline.errors import DataError
from slimline.pruning import trimming
from tests.encoders import texts

tokenizers = pytest.importorskip("tokenizers")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
TEXTS = [text for text, _ in texts(300)]
RARE = "pterodactyl quixotic zwieback goals marketing"


def trained(kind: str) -> Any:
    """Return a tokenizer trained on all texts and rare words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    wide = [*TEXTS, *[RARE] * 20]
    if kind == "WordPiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL)
    elif kind == "Unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=SPECIAL, unk_token="[UNK]")  # noqa: S106
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=500, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
    tokenizer.train_from_iterator(wide, trainer)
    return tokenizer


def smaller(tokenizer: Any, kept: list[str]) -> tuple[dict[str, Any], Any]:
    """Return the trimmed document and tokenizer."""
    used = {number for row in tokenizer.encode_batch(kept) for number in row.ids}
    document = trimming.trimmed(json.loads(tokenizer.to_str()), used, "tokenizer.json")
    return document, tokenizers.Tokenizer.from_str(json.dumps(document))


@pytest.mark.parametrize("kind", ["WordPiece", "BPE", "Unigram"])
@pytest.mark.parametrize("seed", range(5))
def test_the_texts_it_was_made_for_keep_their_tokens(kind: str, seed: int) -> None:
    tokenizer = trained(kind)
    kept = random.Random(seed).sample(TEXTS, 20)
    document, trimmed = smaller(tokenizer, kept)
    for before, after in zip(tokenizer.encode_batch(kept), trimmed.encode_batch(kept), strict=True):
        assert before.ids == after.ids
    assert len(trimming.numbers(document)) < tokenizer.get_vocab_size()


@pytest.mark.parametrize("kind", ["WordPiece", "BPE", "Unigram"])
def test_any_other_text_falls_into_pieces_that_it_can_give(kind: str) -> None:
    tokenizer = trained(kind)
    document, trimmed = smaller(tokenizer, TEXTS)
    before, after = tokenizer.encode(RARE), trimmed.encode(RARE)
    assert len(after.ids) > len(before.ids)
    assert set(after.ids) <= set(trimming.numbers(document))
    assert tokenizer.token_to_id("[UNK]") not in after.ids
    spoken = "".join(token.removeprefix("##") for token in after.tokens).replace("Ġ", " ").replace("▁", " ")
    assert spoken.replace(" ", "") == RARE.replace(" ", "")


def test_special_tokens_keep_their_numbers() -> None:
    tokenizer = trained("WordPiece")
    tokenizer.add_special_tokens(["<late>"])
    _, trimmed = smaller(tokenizer, TEXTS[:3])
    for token in [*SPECIAL, "<late>"]:
        assert trimmed.token_to_id(token) == tokenizer.token_to_id(token)
    assert trimmed.encode("goal <late>").ids[-1] == tokenizer.token_to_id("<late>")


@pytest.mark.parametrize("seed", range(5))
def test_unigram_keeps_numbers_scores_and_unknown_characters(seed: int) -> None:
    """Whole sentences are one lattice here, as SentencePiece has it; some hold characters that no piece has."""
    tokenizer = trained("Unigram")
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(split=False)
    kept = [f"{text} \u4e16{text[:3]}" for text in random.Random(seed).sample(TEXTS, 20)]
    document, trimmed = smaller(tokenizer, kept)
    for before, after in zip(tokenizer.encode_batch(kept), trimmed.encode_batch(kept), strict=True):
        assert before.ids == after.ids
        assert tokenizer.token_to_id("[UNK]") in after.ids
    for (old, score), (new, own) in zip(
        json.loads(tokenizer.to_str())["model"]["vocab"], document["model"]["vocab"], strict=True
    ):
        assert score == own
        assert new == old or new.startswith(trimming.GONE)
    assert trimming.unknown(document) == tokenizer.token_to_id("[UNK]")
    assert len(trimming.numbers(document)) < tokenizer.get_vocab_size()


def test_another_kind_is_refused_in_one_line() -> None:
    document = json.loads(tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, "a")).to_str())
    message = r"^mine.json: vocabulary: train works on BPE, Unigram, WordPiece, .* is WordLevel$"
    with pytest.raises(DataError, match=message):
        trimming.trimmed(document, [0], "mine.json")
