"""Simpler models beside the networks: whatever the script, and never at the cost of what was trained."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from slimline.tasks.text import text
from slimline.teachers import baselines
from tests.encoders import texts, write_table

LETTERS = {
    "chinese": ("的一是不了人我在有他这中大来上", "球赛队胜门员场赢", "钱行股价市银贷款"),
    "japanese": ("のにはをたがでてとしれさある", "試合選手監督優勝", "銀行株価市場金利"),
    "thai": ("และที่ในของไม่เป็นว่าให้", "ฟุตบอลกีฬาทีม", "ธนาคารเงินหุ้น"),
}


def script(name: str, count: int) -> tuple[list[str], list[int]]:
    """Return texts of a script that has no spaces, and the class whose letters stand in each."""
    common, *own = LETTERS[name]
    chance = random.Random(0)
    rows = [(at % 2, chance.randint(10, 30)) for at in range(count)]
    found = ["".join(chance.choice(own[y] if chance.random() < 0.3 else common) for _ in range(n)) for y, n in rows]
    return found, [y for y, _ in rows]


@pytest.mark.parametrize("name", LETTERS)
def test_scripts_without_spaces_are_told_apart_by_letters(name: str) -> None:
    found, labels = script(name, 200)
    assert baselines.terms(found[:150]) == "letters"
    svm = baselines.tfidf_svm(found[:150], np.array(labels[:150]), found[150:])
    assert (svm.answers == labels[150:]).mean() > 0.9
    assert svm.bytes > 1000


def test_texts_with_spaces_are_told_apart_by_words() -> None:
    assert baselines.terms([each for each, _ in texts(150)]) == "words"
    prose = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").split("\n\n")
    assert baselines.terms(prose) == "words"


def write_letters(folder: Path, letters: str) -> None:
    """Write a tokenizer.json for which each letter is a token."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = {token: at for at, token in enumerate(["[PAD]", "[UNK]", *letters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106  (no password)
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))


def test_a_simpler_model_that_fails_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    letters = "".join(chr(0x4E00 + at) for at in range(270))
    write_letters(tmp_path, letters)
    rows = [(letters[3 * at : 3 * at + 3], ("a", "b")[at % 2]) for at in range(90)]  # nothing stands there twice
    write_table(tmp_path / "t.csv", rows)
    task = text(data="t.csv", tokenizer="tokenizer.json", labels=["a", "b"], max_length=8)
    found, notes = baselines.measured(task)
    assert found == {}
    (note,) = notes
    assert note.startswith("no simpler model beside the networks: ")
    assert "\n" not in note


def test_a_simpler_model_that_works_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found, labels = script("chinese", 200)
    write_letters(tmp_path, "".join(dict.fromkeys("".join(LETTERS["chinese"]))))
    write_table(tmp_path / "t.csv", list(zip(found, map(str, labels), strict=True)))
    task = text(data="t.csv", tokenizer="tokenizer.json", labels=["0", "1"], max_length=32)
    made, notes = baselines.measured(task)
    assert notes == []
    assert made[baselines.TFIDF_SVM]["accuracy"] > 0.9
