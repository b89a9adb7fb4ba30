"""Losses on what encoders know of tokens, between real transformers of different width, depth and heads."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor, nn

from slimline.decisions import Decisions
from slimline.errors import ParamsError
from slimline.method import Context, compress
from slimline.methods.drop_layers import DropLayers
from slimline.methods.neurons import Neurons
from slimline.params import Target, Training
from slimline.task import tensors
from slimline.tasks.text import Text, text
from slimline.training import Objective, State, TeacherCache, Term, fit
from slimline.training.losses import SoftTargets
from slimline.training.losses.hidden_states import HiddenStates
from slimline.training.losses.minilm import MiniLm
from tests.encoders import LABELS, texts, write_encoder, write_table

pytest.importorskip("transformers")

from slimline.models.hf_encoder import HfEncoder
from tests.training.draws import SEEDS, drawn

PAIR = {"a": "a"}
LAYERS = {"body.encoder.layer.0": "body.encoder.layer.1"}
REAL = torch.tensor([[True, True, True, True, True], [True, True, True, False, False]])


# --- the formulas ----------------------------------------------------------------------------------------------------


def test_relations_are_their_formula() -> None:
    student, teacher = drawn(2, 5, 6, seed=1), drawn(2, 5, 12, seed=2)
    expected = 0.0
    for row, length in enumerate((5, 3)):
        for head in range(3):
            relations = []
            for features, size in ((student, 2), (teacher, 4)):
                x = features[row, :length, head * size : (head + 1) * size]
                relations.append(F.softmax(x @ x.T / math.sqrt(size), -1))
            ours, theirs = relations
            expected += float((theirs * (theirs.log() - ours.log())).sum()) / (3 * length) / 2
    assert float(MiniLm(PAIR, heads=3)([(student, teacher)], REAL)) == pytest.approx(expected, rel=1e-4)


@given(seed=SEEDS)
def test_relations_survive_turning_within_a_head_and_are_never_negative(seed: int) -> None:
    teacher = drawn(2, 5, 8, seed=seed)
    turn, _ = torch.linalg.qr(drawn(4, 4, seed=seed + 1))
    turned = (teacher.view(2, 5, 2, 4) @ turn).view(2, 5, 8)
    loss = MiniLm(PAIR, heads=2)
    assert float(loss([(turned, teacher)], REAL)) == pytest.approx(0, abs=1e-5)
    assert float(loss([(drawn(2, 5, 8, seed=seed + 2), teacher)], REAL)) > 0


def test_hidden_states_are_their_formula() -> None:
    student, teacher = drawn(2, 5, 6, seed=1), drawn(2, 5, 6, seed=2)
    ours, theirs = student[REAL], teacher[REAL]
    mse, cosine = HiddenStates(PAIR), HiddenStates(PAIR, "cosine")
    assert float(mse([(student, teacher)], REAL)) == pytest.approx(float(((ours - theirs) ** 2).mean()))
    apart = 1 - (F.normalize(ours, dim=-1) * F.normalize(theirs, dim=-1)).sum(-1)
    assert float(cosine([(student, teacher)], REAL)) == pytest.approx(float(apart.mean()), rel=1e-5)
    assert float(cosine([(3 * teacher, teacher)], REAL)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", [HiddenStates(PAIR), HiddenStates(PAIR, "cosine"), MiniLm(PAIR, heads=2)], ids=str)
def test_padding_says_nothing_and_pulls_nowhere(loss: Any) -> None:
    student, teacher = drawn(2, 5, 6).requires_grad_(), drawn(2, 5, 6, seed=1)
    value = loss([(student, teacher)], REAL)
    value.backward()
    other = student.detach().clone()
    other[1, 3:] = 100.0
    assert float(loss([(other, teacher)], REAL)) == pytest.approx(float(value.detach()), rel=1e-5)
    assert student.grad is not None
    assert float(student.grad[1, 3:].abs().max()) == 0
    assert float(student.grad[1, :3].abs().min()) > 0


@pytest.mark.parametrize("loss", [HiddenStates(PAIR), HiddenStates(PAIR, "cosine"), MiniLm(PAIR, heads=2)], ids=str)
def test_pairs_are_summed_and_equal_ones_cost_nothing(loss: Any) -> None:
    first, second = ((drawn(2, 5, 6, seed=seed), drawn(2, 5, 6, seed=seed + 1)) for seed in (0, 2))
    torch.testing.assert_close(loss([first, second], None), loss([first], None) + loss([second], None))
    assert float(loss([(first[0], first[0])], REAL)) == pytest.approx(0, abs=1e-6)


def test_a_projection_is_learnt_only_where_widths_differ() -> None:
    loss = HiddenStates(PAIR)
    assert isinstance(loss.adapter(drawn(2, 5, 6), drawn(2, 5, 6)), nn.Identity)
    made = loss.adapter(drawn(2, 5, 6), drawn(2, 5, 8))
    assert [tuple(p.shape) for p in made.parameters()] == [(8, 6)]
    with pytest.raises(ValueError, match=r"\[5, 6\] and \[4, 6\] a row; hidden states are one vector"):
        loss.adapter(drawn(2, 5, 6), drawn(2, 4, 6))


# --- on real encoders ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("losses")
    torch.manual_seed(0)
    write_encoder(root / "model")
    write_table(root / "t.csv", texts(240))
    return root


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # rows are prepared beside the data


@pytest.fixture
def own_task(folder: Path) -> Text:
    return text(data="t.csv", tokenizer="model", labels=list(LABELS), max_length=16)


@pytest.fixture
def teacher() -> HfEncoder:
    """Two layers of width 32 and two heads."""
    torch.manual_seed(1)
    return HfEncoder("model", classes=3, dropout=0.0).eval()


@pytest.fixture
def student() -> HfEncoder:
    """One layer of width 24 and three heads."""
    torch.manual_seed(2)
    config = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 32}
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return HfEncoder("model", classes=3, dropout=0.0, config=config | quiet)


@pytest.fixture
def objective(own_task: Text, student: HfEncoder, teacher: HfEncoder) -> Callable[..., Objective]:
    def make(*losses: Any, model: nn.Module = student) -> Objective:
        terms = [Term(loss, 1.0, f"params.yaml: distill.loss.{at}") for at, loss in enumerate(losses)]
        return Objective(terms, own_task, model, teacher, own_task.splits()["train"], 3)

    return make


def test_the_objective_reads_the_three_projections_and_knows_padding(
    own_task: Text, student: HfEncoder, teacher: HfEncoder, objective: Callable[..., Objective]
) -> None:
    loss = MiniLm(LAYERS, heads=4)
    made = objective(loss)
    assert student.training
    assert not teacher.training
    batch, y = own_task.splits()["train"][slice(0, 8)]
    inputs = tensors(batch)
    real = inputs["input_ids"] != teacher.pad_id
    assert not bool(real.all())
    found = float(made(student, inputs, torch.from_numpy(y), []).detach())
    states = {}
    for name, model, layer in (("s", student, 0), ("t", teacher, 1)):
        attention: Any = model.get_submodule(f"body.encoder.layer.{layer}.attention.self")
        seen: list[Tensor] = []
        hook = attention.register_forward_pre_hook(lambda _m, args, seen=seen: seen.append(args[0]))
        model(inputs["input_ids"])
        hook.remove()
        states[name] = [each(seen[0]) for each in (attention.query, attention.key, attention.value)]
    pairs = list(zip(states["s"], states["t"], strict=True))
    assert found == pytest.approx(float(loss(pairs, real).detach()), rel=1e-5)
    assert found > 0


@pytest.mark.parametrize(
    ("losses", "falls"),
    [
        ([MiniLm(LAYERS, heads=4)], 0.5),
        ([HiddenStates(LAYERS)], 0.5),
        ([HiddenStates({"body.embeddings": "body.embeddings", **LAYERS}, "cosine")], 0.5),
    ],
    ids=["minilm", "mse", "cosine"],
)
def test_a_student_of_another_shape_learns_them(
    own_task: Text, student: HfEncoder, objective: Callable[..., Objective], losses: list[Any], falls: float
) -> None:
    made = objective(*losses)
    inputs = tensors(own_task.splits()["train"][slice(0, 32)][0])
    optimizer = torch.optim.AdamW([*student.parameters(), *made.regressors.parameters()], lr=5e-3)
    history = []
    for _ in range(40):
        value = made(student, inputs, None, [])
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        history.append(float(value.detach()))
    assert history[-1] < falls * history[0]


def test_a_training_takes_them_beside_soft_targets(
    own_task: Text, student: HfEncoder, teacher: HfEncoder, tmp_path: Path
) -> None:
    rows = own_task.splits()
    cache = TeacherCache(teacher, own_task, rows["train"], "key", 3, tmp_path / "teacher")
    names = list(student.state_dict())
    history = fit(
        student, own_task, rows["train"], rows["validation"], Training(epochs=2, batch_size=32, lr=1e-3, views=1),
        loss=[Term(SoftTargets()), Term(MiniLm(LAYERS, heads=4)), Term(HiddenStates(LAYERS))], seed=0,
        state=State({}, tmp_path), where="here", teacher=cache,
    )  # fmt: skip
    assert history[1].loss < history[0].loss
    assert list(student.state_dict()) == names


ZERO, ONE = (f"body.encoder.layer.{at}.attention.self" for at in range(2))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (MiniLm(LAYERS, heads=5), "24] and [15, 32] a row; heads: 5 must divide both widths"),
        (
            MiniLm({"body.embeddings": "body.encoder.layer.1"}),
            f"'body.embeddings' of the student holds no self-attention with whole projections; there are: {ZERO}",
        ),
        (
            MiniLm({"body.encoder.layer.0": "body.encoder"}),
            f"'body.encoder' of the teacher holds 2 self-attentions with whole projections; there are: {ZERO}, {ONE}",
        ),
        (MiniLm({"body.encoder.layer.0": "body.encoder.layer.2"}), "no layer 'body.encoder.layer.2' in the teacher."),
        (HiddenStates({"classifier": "body.encoder.layer.1"}), "classifier and body.encoder.layer.1 give [3] and "),
    ],
    ids=["heads", "no attention", "several", "unknown", "shapes"],
)
def test_wrong_layers_are_one_line(objective: Callable[..., Objective], loss: Any, message: str) -> None:
    with pytest.raises(ParamsError) as caught:
        objective(loss)
    assert str(caught.value).startswith("params.yaml: distill.loss.0.layers: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_student_cut_from_its_teacher_learns_them(
    own_task: Text, teacher: HfEncoder, objective: Callable[..., Objective]
) -> None:
    """Half the layers and a quarter of the feed-forward neurons, with the teacher's own weights."""
    rows = own_task.splits()
    inputs, y = rows["calibration"][slice(0, 16)]
    batch = tensors(inputs), torch.from_numpy(y)
    context = Context(own_task, rows["calibration"], rows["validation"], Target(), Decisions(None, {}), where="here")
    model: nn.Module = teacher
    for method in (DropLayers({"body.encoder.layer": [1]}), Neurons(ratio=0.75, scope="layer")):
        model, _ = compress(method, model, lambda: [batch], context)
    assert model.get_submodule("body.encoder.layer.0.intermediate.dense").out_features == 16
    made = objective(MiniLm(LAYERS, heads=4), HiddenStates(LAYERS), model=model)
    assert not list(made.regressors.parameters())
    value = made(model, *batch, [])
    value.backward()  # type: ignore[no-untyped-call]
    gradient = model.get_parameter("body.encoder.layer.0.intermediate.dense.weight").grad
    assert gradient is not None
    assert float(gradient.abs().max()) > 0
