"""A table of tokens as a thinner one and a matrix: exact where it can be, closest where texts read it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from slimline.decisions import Decisions
from slimline.errors import MethodError
from slimline.export.onnx import to_onnx
from slimline.method import Batches, Context, compress
from slimline.methods.embedding import Embedding, basis, frequencies
from slimline.methods.linear import Linear
from slimline.methods.vocabulary import Vocabulary
from slimline.models.cnn import Cnn
from slimline.task import tensors
from slimline.tasks.text import Text, text
from slimline.testing import check_method
from tests.encoders import COMMON, LABELS, texts, write_encoder, write_table

transformers = pytest.importorskip("transformers")

from transformers.models.bart.modeling_bart import BartScaledWordEmbedding  # noqa: E402

from slimline.models.hf_encoder import HfEncoder  # noqa: E402

WORDS = "body.embeddings.word_embeddings"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an encoder and tables whose training rows are of two topics."""
    root = tmp_path_factory.mktemp("embedding")
    torch.manual_seed(0)
    write_encoder(root / "model")
    few = [(f"the atom {word}", "science") for word in COMMON]
    write_table(root / "train.csv", [row for row in texts(300) if row[1] != "science"] + few)
    write_table(root / "test.csv", texts(60, seed=1))
    return root


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def task(vocabulary: str = "all") -> Text:
    data = {"train": "train.csv", "test": "test.csv"}
    return text(data=data, tokenizer="model", labels=list(LABELS), max_length=16, vocabulary=vocabulary)


def batches(of: Text, part: str = "calibration") -> Batches:
    inputs, targets = of.splits()[part][slice(0, 64)]
    return lambda: [(tensors(inputs), torch.tensor(targets))]


def context(of: Text) -> Context:
    parts = of.splits()["calibration"], of.splits()["validation"]
    return Context(of, *parts, SimpleNamespace(), Decisions(None, {}), where="here")  # type: ignore[arg-type]


@pytest.fixture
def encoder() -> HfEncoder:
    torch.manual_seed(1)
    return HfEncoder("model", classes=3, config={"initializer_range": 0.3}).eval()


def weighted(table: Tensor, other: Tensor, weights: Tensor) -> float:
    return float((weights[:, None] * (table.double() - other.double()).square()).sum())


def cut(table: Tensor, weights: Tensor, rank: int) -> Tensor:
    """Return A·B of this rank."""
    _, vectors = basis(table, weights)
    return table.double() @ vectors[:, :rank] @ vectors[:, :rank].T


@given(seed=st.integers(0, 100), rank=st.integers(1, 5))
def test_the_weighted_error_is_the_tail_and_none_is_smaller(seed: int, rank: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    table, weights = torch.randn(12, 6, generator=chance), torch.rand(12, generator=chance).double() * 9 + 0.1
    spectrum, _ = basis(table, weights)
    tail = float(spectrum[rank:].square().sum())
    assert weighted(table, cut(table, weights, rank), weights) == pytest.approx(tail, rel=1e-6, abs=1e-9)
    torch.testing.assert_close(spectrum, torch.linalg.svdvals(weights.sqrt()[:, None] * table.double()))
    plain = cut(table, torch.ones(12, dtype=torch.float64), rank)
    assert weighted(table, plain, weights) >= tail - 1e-9


def test_padding_is_not_counted(encoder: HfEncoder) -> None:
    of = task()
    inputs, _ = batches(of)()[0]  # type: ignore[index]
    counts = frequencies(encoder, [WORDS], batches(of), context(of))[WORDS]
    ids = inputs["input_ids"]
    assert bool((ids == encoder.pad_id).any())
    expected = torch.bincount(ids[ids != encoder.pad_id], minlength=96).double()
    torch.testing.assert_close(counts, expected)
    assert float(counts[encoder.pad_id]) == 0


def test_a_full_rank_changes_nothing(encoder: HfEncoder) -> None:
    of = task()
    inputs, _ = batches(of)()[0]  # type: ignore[index]
    table: Any = encoder.get_submodule(WORDS)
    with torch.no_grad():
        table.weight.copy_(torch.randn(96, 8) @ torch.randn(8, 32))
    changed, plan = compress(Embedding(rank=8), encoder, batches(of), context(of))
    torch.testing.assert_close(changed(inputs["input_ids"]), encoder(inputs["input_ids"]), atol=1e-4, rtol=1e-3)
    assert plan.notes[0].startswith(f"{WORDS}: rank 8: 12,288 to 4,096 bytes of float32, 0.00% of the squares lost")
    assert plan.notes[1] == "1 of 1 tables factorized: 12,288 to 4,096 bytes of float32"


def test_what_texts_read_is_kept_best(encoder: HfEncoder) -> None:
    of = task()
    counts = frequencies(encoder, [WORDS], batches(of), context(of))[WORDS]
    table: Any = encoder.get_submodule(WORDS)
    changed, _ = compress(Embedding(rank=16), encoder, batches(of), context(of))
    made: Any = changed.get_submodule(WORDS)
    whole = made(torch.arange(96)).detach()
    own = table.weight.detach()[1:]  # padding's row is zero
    apart, counts = (whole[1:] - own).square().sum(1) / own.square().sum(1), counts[1:]
    often, never = apart[counts >= 20].mean(), apart[counts == 0].mean()
    assert float(often) < 0.5 * float(never)
    assert float(never) < 1  # the floor keeps something of them


@pytest.mark.parametrize("energy", [0.5, 0.9])
def test_energy_takes_the_smallest_rank(encoder: HfEncoder, energy: float) -> None:
    of = task()
    counts = frequencies(encoder, [WORDS], batches(of), context(of))[WORDS] + 0.01
    table: Any = encoder.get_submodule(WORDS)
    squares = basis(table.weight, counts)[0].square()
    _, plan = compress(Embedding(energy=energy), encoder, batches(of), context(of))
    rank = plan.edit.data["ranks"].get(WORDS)
    wanted = next(at for at in range(1, 33) if float(squares[:at].sum() / squares.sum()) >= energy)
    assert rank == (wanted if wanted * (96 + 32) < 96 * 32 else None)


def test_after_trimming_and_in_8_bits_it_is_gather_and_matmul_in_onnx(encoder: HfEncoder) -> None:
    import onnxruntime

    of = task("train")
    model: nn.Module = encoder
    for method in (Vocabulary(), Embedding(rank=8), Linear()):
        model, _ = compress(method, model, batches(of), context(of))  # type: ignore[arg-type]
    graph = to_onnx(model, of.signature())
    kept = model.get_submodule(f"{WORDS}.rows.0").weight.shape[0]  # type: ignore[union-attr]
    integers = [list(each.dims) for each in graph.graph.initializer if each.data_type == 3]
    assert [kept, 8] in integers
    assert not any(each.dims == [kept, 32] for each in graph.graph.initializer)
    inputs, _ = of.splits()["test"][slice(0, 20)]
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, dict(inputs))[0]
    with torch.inference_mode():
        expected = model.eval()(*tensors(inputs).values()).numpy()
    assert float(np.abs(found - expected).max()) < 0.02 * float(expected.std()) + 0.02


def test_the_promises_of_a_method(encoder: HfEncoder) -> None:
    check_method(Embedding(rank=8), encoder, task(), may_refuse=("linear",))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Embedding(), "here: embedding takes one of rank and energy"),
        (Embedding(rank=8, energy=0.5), "here: embedding takes one of rank and energy"),
        (Embedding(rank=24), f"here.rank: 24 saves nothing of {WORDS}, 96 × 32; at most 23 does"),
        (Embedding(rank=8, tables=["*.words"]), f"here.tables: no embedding '*.words'; there are: {WORDS}, body."),
    ],
    ids=["neither", "both", "too wide", "no such table"],
)
def test_what_cannot_be_is_one_line(encoder: HfEncoder, method: Embedding, message: str) -> None:
    of = task()
    with pytest.raises(MethodError) as caught:
        method.check_model(encoder, batches(of), context(of))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_net_without_a_table_and_one_in_integers_are_refused(encoder: HfEncoder, cnn: Cnn) -> None:
    of = task()
    with pytest.raises(MethodError, match="here: embedding found no embedding in this model"):
        Embedding(rank=8).check_model(cnn, batches(of), context(of))
    quantized, _ = compress(Linear(), encoder, batches(of), context(of))
    with pytest.raises(MethodError, match=f"here: {WORDS} is quantized already; factorize it before"):
        Embedding(rank=8).check_model(quantized, batches(of), context(of))
    foreseen = Linear().foresee(encoder, batches(of), context(of))  # what slimline check holds the method against
    with pytest.raises(MethodError, match=f"here: {WORDS} is quantized already; factorize it before"):
        Embedding(rank=8).check_model(foreseen, batches(of), context(of))
    assert Vocabulary().foresee(foreseen, batches(of), context(of)) is not foreseen
    skipped = Linear(skip=[WORDS]).foresee(encoder, batches(of), context(of))
    Embedding(rank=8).check_model(skipped, batches(of), context(of))


class Named(nn.Module):
    """Gives its table the ids by keyword."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.table, self.head = table, nn.Linear(16, 3)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(self.table(input=input_ids).mean(1))  # type: ignore[no-any-return]


def tied() -> nn.Module:
    model = Named(nn.Embedding(96, 16))
    model.other = nn.Linear(16, 96, bias=False)
    model.other.weight = model.table.weight
    return model


def twice() -> nn.Module:
    model = Named(nn.Embedding(96, 16))
    model.other = model.table
    return model


@pytest.mark.parametrize("tables", [None, ["t*"]], ids=["the largest", "named"])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Named(BartScaledWordEmbedding(96, 16, 0, 4.0)),
            "here: table is a BartScaledWordEmbedding, which may do more than look up",
        ),
        (Named(nn.Embedding(96, 16, max_norm=1.0)), "here: table has max_norm, which its factors can't keep"),
        (tied(), "here: table.weight is other.weight too"),
        (twice(), "here: table.weight is other.weight too"),
    ],
    ids=["scaled", "max norm", "tied weight", "one table, two names"],
)
def test_a_table_that_factors_cannot_stand_for_is_refused(
    model: nn.Module, message: str, tables: list[str] | None
) -> None:
    of = task()
    with pytest.raises(MethodError) as caught:
        Embedding(rank=4, tables=tables).check_model(model, batches(of), context(of))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_ids_given_by_keyword_are_counted() -> None:
    of = task()
    model = Named(nn.Embedding(96, 16))
    inputs, _ = batches(of)()[0]  # type: ignore[index]
    ids = inputs["input_ids"]
    counts = frequencies(model, ["table"], batches(of), context(of))["table"]
    torch.testing.assert_close(counts, torch.bincount(ids[ids != of.padding[1]], minlength=96).double())
