from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from slimline.decisions import Decisions
from slimline.errors import MethodError, ParamsError
from slimline.export.onnx import export
from slimline.export.signed import requantize
from slimline.factorization.ranks import Ratio
from slimline.method import Batches, Context, compress
from slimline.methods.linear import Linear
from slimline.methods.svd import Svd
from slimline.methods.symmetric import Symmetric
from slimline.models.hf_encoder import HfEncoder
from slimline.models.resnet import ResNet
from slimline.params import Configured, configure
from slimline.pruning.channels import slice_layer
from slimline.quantization import quantizers
from slimline.quantization.plan import Quantize
from slimline.quantization.smoothing import Move, find_moves, scales, smooth
from slimline.runtimes.onnxruntime import OnnxRuntime
from tests import encoders

WIDTH, OUTLIERS = 32, [3, 17]
FLOAT = ["*embeddings*", "classifier"]
HEADS = "body.encoder.layer.{}.attention.self."
SIGNATURE = {
    "inputs": [{"name": "input_ids", "dtype": "int64", "shape": ["batch", "length"]}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 3]}],
}


class PreNorm(nn.Module):
    """A block whose norms stand before the layers, as in ViT: nothing else reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.a, self.b = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.second, self.c = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        z = x + self.a(y) * self.b(y)
        out: Tensor = self.c(self.second(z))
        return out


@pytest.fixture
def encoder(tmp_path: Path) -> HfEncoder:
    """A BERT of two layers, two channels of whose norms and values are large and are read with small weights."""
    torch.manual_seed(0)
    model = HfEncoder(str(encoders.write_encoder(tmp_path / "bert")), classes=3).eval()
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.LayerNorm):
                module.weight[OUTLIERS] *= 10
            if isinstance(module, nn.Linear):
                module.weight *= 8
            if name.endswith("self.value"):
                module.weight[OUTLIERS] *= 10  # type: ignore[operator]
            if name.endswith(("query", "key", "value", "intermediate.dense", "attention.output.dense", "classifier")):
                module.weight[:, OUTLIERS] /= 10  # type: ignore[operator]
    return model


def ids(rows: int = 24, length: int = 9) -> Tensor:
    return torch.randint(1, 96, (rows, length), generator=torch.Generator().manual_seed(1))


def token_batches() -> list[Any]:
    return [({"input_ids": each}, torch.zeros(len(each))) for each in ids().chunk(3)]


@pytest.fixture
def plain_context() -> Context:
    return Context(None, None, None, None, Decisions(None, {}), where="here")  # type: ignore[arg-type]


def test_norms_that_nothing_else_reads_take_the_factor() -> None:
    moves = find_moves(PreNorm(), {"x": torch.randn(4, 8)}, ["a", "b", "c"])
    assert moves == [Move("norm", ("a", "b"), folded=True), Move("second", ("c",), folded=True)]
    assert find_moves(PreNorm(), {"x": torch.randn(4, 8)}, ["a", "c"])[0] == Move("norm", ("a",), folded=False)


class Joined(nn.Module):
    """A norm that a linear layer reads, and a concatenation too."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.a, self.last = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        out: Tensor = self.last(torch.cat([y, self.a(y)], dim=-1))
        return out


def test_what_a_list_hands_on_is_read_too() -> None:
    x = torch.randn(16, 8)
    x[:, 2] *= 50
    model = Joined().eval()
    moves = find_moves(model, {"x": x}, ["a", "last"])
    assert moves == [Move("norm", ("a",), folded=False)]
    assert smooth(model, moves, 0.5, lambda: [({"x": x}, torch.zeros(16))]).keys() == {"a"}


def test_behind_a_post_norm_stands_a_factor_and_behind_attention_none(encoder: HfEncoder) -> None:
    names = [name for name, each in encoder.named_modules() if isinstance(each, nn.Linear)]
    own = [each for each in names if each.startswith("body.encoder.layer.0")]
    found = find_moves(encoder, {"input_ids": ids()}, own)
    projections = tuple(HEADS.format(0) + each for each in ("query", "key", "value"))
    layer = "body.encoder.layer.0."
    assert found == [
        Move("body.embeddings.LayerNorm", projections, folded=False),
        Move(f"{layer}attention.output.LayerNorm", (f"{layer}intermediate.dense",), folded=False),
        Move(projections[2], (f"{layer}attention.output.dense",), folded=True),
    ]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_function_stays(encoder: HfEncoder, alpha: float) -> None:
    names = [name for name, each in encoder.named_modules() if isinstance(each, nn.Linear)]
    moves = find_moves(encoder, {"input_ids": ids()}, names)
    moved = copy.deepcopy(encoder)
    factors = smooth(moved, moves, alpha, token_batches)
    assert len(factors) == 8, "query, key, value and the feed-forward's first, twice"
    for name, factor in factors.items():
        layer = moved.get_submodule(name)
        layer.register_forward_pre_hook(lambda _m, args, f=factor: (args[0] * f,))
    with torch.no_grad():
        torch.testing.assert_close(moved(ids()), encoder(ids()), rtol=1e-5, atol=1e-5)


def test_a_pre_norm_takes_all_in(plain_context: Context) -> None:
    torch.manual_seed(0)
    model = PreNorm().eval()
    model.norm.weight.data[2] = 50.0
    x = torch.randn(64, 8)
    rows = [({"x": x}, torch.zeros(64))]
    made, plan = compress(Linear(smooth=0.5), model, lambda: rows, plain_context)
    assert not any(name.endswith("factor") for name in made.state_dict())
    assert "3 linear layers moved into their weights: 2 layers before them" in plan.notes[1]
    with torch.no_grad():
        torch.testing.assert_close(quantizers.plain(made)(x), model(x), rtol=1e-4, atol=1e-4)


def test_scales_share_the_range_out() -> None:
    s = scales(torch.tensor([100.0, 1.0, 0.0, 4.0]), torch.tensor([1.0, 1.0, 1.0, 0.0]), 0.5)
    assert s.tolist() == [10.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("method", [Linear, Symmetric])
def test_outliers_cost_less(encoder: HfEncoder, plain_context: Context, method: type[Quantize]) -> None:
    with torch.no_grad():
        expected = encoder(ids())
        errors = []
        for alpha in (None, 0.5):
            made, _ = compress(method(smooth=alpha, skip=FLOAT), encoder, token_batches, plain_context)
            errors.append(float((made.eval()(ids()) - expected).square().mean()))
    assert errors[1] < 0.1 * errors[0], errors


@pytest.mark.parametrize("ranges", ["static", "dynamic"])
def test_the_runtime_answers_as_torch_with_one_multiplication_a_norm(
    encoder: HfEncoder, plain_context: Context, tmp_path: Path, ranges: Any
) -> None:
    made, _ = compress(Linear(smooth=0.5, ranges=ranges, skip=FLOAT), encoder, token_batches, plain_context)
    export(made.eval(), SIGNATURE, tmp_path, {})
    graph: Any = onnx.load(tmp_path / "model.onnx").graph
    factors = {each.name for each in graph.initializer if list(each.dims) == [WIDTH] and each.data_type == 1}
    rounded = {each.input[0] for each in graph.node if each.op_type.endswith("QuantizeLinear")}
    muls = [each for each in graph.node if each.op_type == "Mul" and each.output[0] in rounded]
    assert sum(each.input[1] in factors for each in muls) == 4
    with torch.inference_mode():
        expected = made(ids()).numpy()
    found = OnnxRuntime(tmp_path, 1).run({"input_ids": ids().numpy()})["y"]
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_it_is_saved_quantized_anew_and_taken_off(encoder: HfEncoder, plain_context: Context) -> None:
    made, plan = compress(Linear(smooth=0.5), encoder, token_batches, plain_context)
    replayed = Linear.apply(copy.deepcopy(encoder), plan.edit)
    replayed.load_state_dict(made.state_dict())
    with torch.no_grad():
        assert torch.equal(replayed.eval()(ids()), made.eval()(ids()))
        for again in (Linear(), Linear(smooth=0.8)):
            anew, _ = compress(again, made, token_batches, plain_context)
            torch.testing.assert_close(quantizers.plain(anew)(ids()), encoder(ids()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("alpha", [None, 0.5, 0.9])
def test_a_layer_left_out_the_second_time_keeps_factor_and_weight(
    encoder: HfEncoder, plain_context: Context, alpha: float | None
) -> None:
    """Its weight took the factor back while the factor stayed, and the answers were others."""
    left = HEADS.format(0) + "query"
    once, _ = compress(Linear(smooth=0.5, skip=FLOAT), encoder, token_batches, plain_context)
    twice, _ = compress(Linear(smooth=alpha, skip=[*FLOAT, left]), once, token_batches, plain_context)
    with torch.no_grad():
        torch.testing.assert_close(quantizers.plain(twice)(ids()), encoder(ids()), rtol=1e-4, atol=1e-4)
        expected = encoder(ids())
        errors = [float((each.eval()(ids()) - expected).square().mean()) for each in (once, twice)]
    assert alpha is None or errors[1] < 2 * errors[0], errors


def test_other_methods_keep_the_factor(encoder: HfEncoder, plain_context: Context) -> None:
    made, _ = compress(Linear(smooth=0.5, skip=FLOAT), encoder, token_batches, plain_context)
    with torch.no_grad():
        before = made.eval()(ids())
        signed, _ = requantize(made)
        size = (before - before.mean(0)).abs().max()
        assert (signed(ids()) - before).abs().max() < 0.2 * size
        layers = "body.encoder.layer.0.intermediate.dense"
        skip = [name for name, each in made.named_modules() if isinstance(each, nn.Linear) and name != layers]
        thin, _ = compress(Svd(rank=Ratio(0.9), skip=skip), made, token_batches, plain_context)
        assert (thin.eval()(ids()) - before).abs().max() < 0.2 * size


def test_slicing_takes_the_factor_along(encoder: HfEncoder, plain_context: Context) -> None:
    made, _ = compress(Linear(smooth=0.5), encoder, token_batches, plain_context)
    layer = made.get_submodule(HEADS.format(0) + "query")
    kept, x = [0, 3, 17, 20], torch.zeros(2, WIDTH)
    x[:, kept] = torch.randn(2, 4)
    expected = layer(x)
    slice_layer(layer, None, kept)
    torch.testing.assert_close(layer(x[:, kept]), expected)


def test_nothing_is_to_be_moved_where_inputs_stay_floats() -> None:
    with pytest.raises(MethodError, match=r"here.smooth: activation_bits: 32 leaves inputs unrounded"):
        Linear(smooth=0.5, activation_bits=32).check("here")


def test_smoothing_that_finds_nothing_is_an_error(
    resnet: ResNet, encoder: HfEncoder, batches: Batches, plain_context: Context
) -> None:
    with pytest.raises(MethodError, match=r"^here.smooth: nothing to move: none of the Linear layers"):
        Linear(smooth=0.5).check_model(resnet, batches, plain_context)
    Linear().check_model(resnet, batches, plain_context)
    Linear(smooth=0.5).check_model(encoder, token_batches, plain_context)
    Linear(smooth=0.5, skip="auto").check_model(encoder, token_batches, plain_context)
    with pytest.raises(MethodError, match=r"^here.smooth: nothing to move"):
        Linear(smooth=0.5, skip=["*self*", "*dense"]).check_model(encoder, token_batches, plain_context)


def test_the_share_lies_between_none_and_all() -> None:
    with pytest.raises(ParamsError, match=r"^params.yaml: quantize.methods.0.smooth: .*less than or equal to 1"):
        configure("methods", Configured(name="linear", smooth=1.5), "params.yaml: quantize.methods.0")


def test_a_change_of_the_function_is_an_error() -> None:
    """Were a source to be taken for one that is read channel by channel, the answers would tell."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3)).eval()
    rows = [({"x": 4 * torch.randn(16, 8)}, torch.zeros(16))]
    with pytest.raises(MethodError, match=r"smooth: the model's answers would change by"):
        smooth(model, [Move("0", ("2",), folded=True)], 0.5, lambda: rows)
