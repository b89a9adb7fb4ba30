"""Heads and neurons, of a small transformer of our own and of one from transformers where that is installed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimline.decisions import Decisions
from slimline.errors import MethodError
from slimline.export.onnx import to_onnx
from slimline.method import Context, compress
from slimline.methods.heads import Heads
from slimline.methods.linear import Linear
from slimline.methods.neurons import Neurons
from slimline.models.cnn import Cnn
from slimline.pruning import encoder_parts
from slimline.pruning.encoder_pruning import EncoderPruning

WIDTH, HEADS, SIZE, NEURONS = 24, 6, 4, 64
VOCABULARY = 50


class Attention(nn.Module):
    """Self-attention whose heads are counted from its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_head_size = SIZE
        self.q, self.k, self.v = (nn.Linear(WIDTH, HEADS * SIZE) for _ in range(3))
        self.out = nn.Linear(HEADS * SIZE, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:2], -1, SIZE)
        q, k, v = (each(x).view(shape).transpose(1, 2) for each in (self.q, self.k, self.v))
        mixed = torch.softmax(q @ k.transpose(2, 3) / SIZE**0.5, -1) @ v
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(*x.shape[:2], -1))
        return out


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.first, self.second = Attention(), nn.Linear(WIDTH, NEURONS), nn.Linear(NEURONS, WIDTH)
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.norms[0](x + self.attention(x))
        out: Tensor = self.norms[1](x + self.second(nn.functional.gelu(self.first(x))))
        return out


class Gated(Block):
    """Its feed-forward layer's halves are multiplied, as ModernBERT's."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, 2 * NEURONS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norms[0](x + self.attention(x))
        value, gate = self.first(x).chunk(2, dim=-1)
        out: Tensor = self.norms[1](x + self.second(nn.functional.gelu(value) * gate))
        return out


class Separate(Block):
    """The gate and what it gates are layers of their own, without biases, as Llama's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up = (nn.Linear(WIDTH, NEURONS, bias=False) for _ in range(2))
        self.second = nn.Linear(NEURONS, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norms[0](x + self.attention(x))
        out: Tensor = self.norms[1](x + self.second(nn.functional.silu(self.first(x)) * self.up(x)))
        return out


class Encoder(nn.Module):
    def __init__(self, blocks: int = 2) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.classifier = nn.Linear(WIDTH, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.classifier(x.mean(1))
        return out


class Task:
    """What gradients are taken of."""

    @staticmethod
    def loss(out: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(out, y)


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder().eval()


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(0, VOCABULARY, (8, 7), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def compressed(ids: Tensor) -> Callable[[EncoderPruning, nn.Module], tuple[nn.Module, Any]]:
    context = Context(Task(), None, None, None, Decisions(None, {}), where="here")  # type: ignore[arg-type]
    batch = {"ids": ids}, torch.arange(8) % 3
    return lambda method, model: compress(method, model, lambda: [batch], context)


def test_parts_are_found_without_names(encoder: Encoder, ids: Tensor) -> None:
    found = encoder_parts.attentions(encoder, {"ids": ids})
    assert [(each.module, each.heads, each.head_size) for each in found] == [
        (f"blocks.{at}.attention", HEADS, SIZE) for at in range(2)
    ]
    neurons = encoder_parts.feed_forwards(encoder, {"ids": ids})
    assert [(group.members[0][0], group.members[1][0], group.channels) for group in neurons] == [
        (f"blocks.{at}.first", f"blocks.{at}.second", NEURONS) for at in range(2)
    ]


def test_parts_that_say_nothing_go_and_nothing_changes(
    encoder: Encoder, ids: Tensor, compressed: Callable[..., tuple[nn.Module, Any]]
) -> None:
    for block in encoder.blocks:
        assert isinstance(block, Block)
        with torch.no_grad():
            block.attention.out.weight[:, SIZE : 3 * SIZE] = 0.0  # heads 1 and 2
            block.second.weight[:, 10:26] = 0.0
    before = encoder(ids)
    model, plan = compressed(Heads(ratio=1 / 3, scope="layer"), encoder)
    model, more = compressed(Neurons(ratio=0.25, scope="layer", multiple=8), model)
    torch.testing.assert_close(model(ids), before, atol=1e-5, rtol=1e-4)
    assert "blocks.0.attention.q: 4 of 6 heads kept" in plan.notes
    assert "blocks.1.first: 48 of 64 neurons kept" in more.notes
    assert more.notes[-1] == "25.0% of the neurons are gone where 25.0% was asked"
    assert model.get_submodule("blocks.0.attention.out").in_features == 4 * SIZE


def test_the_same_score_as_gates_would_give(encoder: Encoder, ids: Tensor) -> None:
    """I_h = Σ_d |∂L/∂ξ_h,d|: a gate's gradient is Σ w·g over the column that reads what it scales."""
    from slimline.pruning import importances

    y = torch.arange(8) % 3
    gates = torch.ones(HEADS * SIZE, requires_grad=True)
    layer = encoder.get_submodule("blocks.0.attention.out")
    hook = layer.register_forward_pre_hook(lambda _, args: (args[0] * gates,))
    Task.loss(encoder(ids), y).backward()
    hook.remove()
    context = Context(Task(), None, None, None, Decisions(None, {}))  # type: ignore[arg-type]
    group = encoder_parts.attentions(encoder, {"ids": ids})[0].group
    reads = type(group)([member for member in group.members if member[1] == "in"], group.channels)
    (found,) = importances.scores("taylor", [reads], encoder, lambda: [({"ids": ids}, y)], context)
    assert gates.grad is not None
    torch.testing.assert_close(found.float(), gates.grad.abs().view(HEADS, SIZE).sum(1), atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(
    ("block", "rows"), [(Gated, {"first": 96}), (Separate, {"first": 48, "up": 48})], ids=["one-layer", "two-layers"]
)
def test_neurons_of_gated_layers_go_with_both_halves(
    block: type[Block], rows: dict[str, int], encoder: Encoder, ids: Tensor,
    compressed: Callable[..., tuple[nn.Module, Any]],
) -> None:  # fmt: skip
    gated = nn.ModuleList(block() for _ in range(2))
    with torch.no_grad():
        for each in gated:
            each.get_parameter("second.weight")[:, 10:26] = 0.0
    encoder.blocks = gated.eval()
    before = encoder(ids)
    model, plan = compressed(Neurons(ratio=0.25, scope="layer", multiple=8), encoder)
    torch.testing.assert_close(model(ids), before, atol=1e-5, rtol=1e-4)
    assert "blocks.1.first: 48 of 64 neurons kept" in plan.notes
    sizes = {name: model.get_submodule(f"blocks.0.{name}").weight.shape for name in (*rows, "second")}
    assert sizes == {name: (wide, WIDTH) for name, wide in rows.items()} | {"second": (WIDTH, 48)}


def test_layers_of_which_one_half_is_unread_are_not_gated(encoder: Encoder, ids: Tensor) -> None:
    class Half(Gated):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.norms[1](self.second(self.first(x).chunk(2, dim=-1)[0]))
            return out

    encoder.blocks = nn.ModuleList([Half()])
    assert encoder_parts.feed_forwards(encoder, {"ids": ids}) == []


@pytest.mark.parametrize("method", [Heads(), Neurons()], ids=["heads", "neurons"])
def test_replaying_the_edit_gives_the_same_structure(
    encoder: Encoder, ids: Tensor, method: EncoderPruning, compressed: Callable[..., tuple[nn.Module, Any]]
) -> None:
    model, plan = compressed(method, encoder)
    again = type(method).apply(Encoder(), plan.edit)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(ids), model(ids))
    assert sum(each.numel() for each in model.parameters()) < sum(each.numel() for each in encoder.parameters())


def test_quantizers_stay_and_the_narrower_model_is_exported(
    encoder: Encoder, ids: Tensor, compressed: Callable[..., tuple[nn.Module, Any]]
) -> None:
    model, _ = compressed(Linear(ranges="dynamic"), encoder)
    model, _ = compressed(Heads(ratio=0.5), model)
    model, _ = compressed(Neurons(ratio=0.5), model)
    signature = {
        "inputs": [{"name": "ids", "dtype": "int64", "shape": ["batch", "length"]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 3]}],
    }
    graph = to_onnx(model, signature)
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = model.eval()(ids)
    torch.testing.assert_close(
        torch.from_numpy(session.run(None, {"ids": ids.numpy()})[0]), expected, atol=1e-4, rtol=1e-3
    )


def test_a_net_without_them_is_refused(cnn: Cnn, compressed: Callable[..., tuple[nn.Module, Any]]) -> None:
    context = Context(Task(), None, None, None, Decisions(None, {}), where="here")  # type: ignore[arg-type]
    batch = {"image": torch.zeros(2, 1, 8, 8)}, torch.zeros(2, dtype=torch.long)
    with pytest.raises(MethodError, match="here: heads found no heads in this model"):
        Heads().plan(cnn, lambda: [batch], context)


def test_a_share_or_widths_that_cant_be_are_refused(
    encoder: Encoder, compressed: Callable[..., tuple[nn.Module, Any]]
) -> None:
    with pytest.raises(MethodError, match=r"there\.ratio: 0\.9 is above max_ratio, 0\.75; raise that"):
        Heads(ratio=0.9).check("there")
    with pytest.raises(MethodError, match=r"here\.multiple: nothing can be pruned: .*; the widest has 64"):
        compressed(Neurons(multiple=64), encoder)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "electra", "modernbert", "eurobert", "gte", "nomic_bert"])
def test_encoders_of_transformers(kind: str, ids: Tensor, compressed: Callable[..., tuple[nn.Module, Any]]) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra hf")
    sizes = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "pad_token_id": 0,
    }  # fmt: skip
    if kind == "distilbert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    more = {"embedding_size": 32} if kind == "electra" else {}
    config = transformers.AutoConfig.for_model(kind, vocab_size=VOCABULARY, num_labels=3, **sizes, **more)

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = transformers.AutoModelForSequenceClassification.from_config(config)

        def forward(self, ids: Tensor) -> Tensor:
            out: Tensor = self.body(input_ids=ids).logits
            return out

    torch.manual_seed(0)
    model: nn.Module = Wrapped().eval()
    methods: dict[EncoderPruning, str] = {Heads(ratio=0.5, scope="layer"): "2 of 4 heads"}
    if kind == "modernbert":  # queries, keys and values are one layer
        methods = {}
    methods[Neurons(ratio=0.5, scope="layer")] = "32 of 64"
    for method, parts in methods.items():
        before = copy.deepcopy(model)
        model, plan = compressed(method, model)
        assert sum(parts in note for note in plan.notes) == 2, plan.notes
        assert model(ids).shape == before(ids).shape
