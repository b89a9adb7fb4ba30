"""Speed of single layers and of whole torch models on the target, for methods that choose by measurement."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline import benchmark, latency, layer_hooks, manifest, plugins, progress, runtime_choice
from slimline.params import Target
from slimline.predictor import Arrays
from slimline.quantization.quantizers import QuantizedConv2d, QuantizedLinear, Quantizer, has_integer_kernel
from slimline.task import Split, call, tensors

LAYER_ROUNDS, LAYER_REPEATS = 8, 20
MODEL_ROUNDS, MODEL_REPEATS = 20, 20


def layers(
    variants: Mapping[str, nn.Module], shape: Sequence[int] | Mapping[str, Sequence[int]], target: Target
) -> dict[str, dict[int, float]]:
    """Return {variant: {batch size: median seconds}} of layers alone, interleaved.

    A variant is a Conv2d, a Linear or a Sequential of them, quantized or not; ``shape`` is its input's without the
    batch, or one for each variant by name. Weights don't matter to speed, so the graphs hold ones.
    """
    shapes = shape if isinstance(shape, Mapping) else dict.fromkeys(variants, shape)
    with tempfile.TemporaryDirectory() as folder:
        runtimes = {
            name: _runtime(_chain(module, shapes[name]), Path(folder, name), target)
            for name, module in variants.items()
        }
        rng = np.random.default_rng(0)
        inputs = {
            n: {name: rng.random((n, *shapes[name]), dtype=np.float32) for name in variants} for n in target.batch_sizes
        }
        with progress.rounds(f"times of a layer, {len(variants)} variants", LAYER_ROUNDS) as done:
            samples = latency.measure(
                {name: _reads(name, runtime) for name, runtime in runtimes.items()},
                inputs,
                rounds=LAYER_ROUNDS,
                repeats=LAYER_REPEATS,
                pause=_pause(target),
                progress=done,
            )
    return {name: {batch: each.p50 for batch, each in by_batch.items()} for name, by_batch in samples.items()}


@contextmanager
def exported(variants: Mapping[str, nn.Module], signature: Mapping[str, Any]) -> Iterator[dict[str, Path]]:
    """Yield {variant: folder of its ONNX file}, which last as long as the context."""
    export = plugins.find("exporters", "onnx")
    with tempfile.TemporaryDirectory() as folder:
        found = {name: Path(folder, name) for name in variants}
        for name, model in variants.items():
            found[name].mkdir()
            export(model, signature, found[name], {})
        yield found


def outputs(folder: Path, split: Split, target: Target) -> NDArray[Any]:
    """Return an export's outputs for every row of a split, N first, by the target's runtime."""
    name = runtime_choice.default(target.runtime)
    runtime = plugins.find("runtimes", name)(folder, 1)
    try:
        return benchmark.of_split(runtime.run, split, name)
    finally:
        runtime.close()


def models(
    variants: Mapping[str, nn.Module], signature: Mapping[str, Any], split: Split, target: Target
) -> dict[str, dict[int, latency.Samples]]:
    """Return {variant: {batch size: Samples}} of whole models exported for the target, interleaved, on rows of a split.

    Rows of several lengths are timed as the ``latency`` stage times them: batches as long as their longest row.
    """
    runtime = runtime_choice.default(target.runtime)
    with exported(variants, signature) as folders:
        return _on([runtime], folders, signature, split, target)[runtime]


def on_best(
    folders: Mapping[str, Path], signature: Mapping[str, Any], split: Split, target: Target
) -> tuple[dict[str, dict[int, latency.Samples]], dict[str, str]]:
    """Return what ``models`` does, of exports, and {variant: runtime}: with ``auto`` each one's fastest counts.

    All are interleaved in one measurement, which takes no longer than one runtime's may. Answers aren't compared.
    """
    timed = _on(runtime_choice.candidates(target.runtime, target.threads), folders, signature, split, target)
    allowed = dict.fromkeys(timed, True)
    best = {
        name: runtime_choice.fastest({runtime: found[name] for runtime, found in timed.items()}, allowed)
        for name in folders
    }
    return {name: timed[runtime][name] for name, runtime in best.items()}, best


def _on(
    runtimes: Sequence[str], folders: Mapping[str, Path], signature: Mapping[str, Any], split: Split, target: Target
) -> dict[str, dict[str, dict[int, latency.Samples]]]:
    """Return {runtime: {variant: {batch size: Samples}}}, without runtimes that are an earlier one over again."""
    with ExitStack() as after:
        loaded: dict[str, dict[str, Any]] = {runtime: {} for runtime in runtimes}
        for name, folder in folders.items():
            for runtime in runtimes:
                own = plugins.find("runtimes", runtime)(folder, target.threads)
                after.callback(own.close)
                loaded[runtime][name] = own
        computed = {
            runtime: runtime_choice.precision(next(iter(by_name.values()))) for runtime, by_name in loaded.items()
        }
        kept = runtime_choice.distinct(runtimes, computed)
        calls = {_job(name, runtime): loaded[runtime][name].run for runtime in kept for name in folders}
        inputs = _inputs(signature, split, target)
        with progress.rounds(f"times of models: {', '.join(folders)}", MODEL_ROUNDS) as done:
            samples = latency.measure(
                calls, inputs, rounds=MODEL_ROUNDS, repeats=MODEL_REPEATS, pause=_pause(target), progress=done
            )
    return {runtime: {name: samples[_job(name, runtime)] for name in folders} for runtime in kept}


def _job(variant: str, runtime: str) -> str:
    return f"{variant} on {runtime}"


def _inputs(signature: Mapping[str, Any], split: Split, target: Target) -> Mapping[int, Arrays | list[Arrays]]:
    if split.padding is not None:
        return latency.typical_batches(split, target.batch_sizes, MODEL_REPEATS, seed=0)
    rows, _ = split[slice(0, max(target.batch_sizes))]
    return latency.sample_inputs(signature, target.batch_sizes, rows)


def file_bytes(model: nn.Module, signature: Mapping[str, Any]) -> int:
    """Return the size of the ONNX file that ``model`` is exported as."""
    with tempfile.TemporaryDirectory() as folder:
        plugins.find("exporters", "onnx")(model, signature, Path(folder), {})
        return sum(path.stat().st_size for path in Path(folder).glob("model.onnx*"))


def gain(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """Return the geometric mean over batch sizes of before / after."""
    return float(np.exp(np.mean([np.log(before[batch] / after[batch]) for batch in before])))


def _pause(target: Target) -> float:
    """Return the pause between groups: on one thread no runtime has others that would have to go to sleep first."""
    return 0.0 if target.threads == 1 else latency.PAUSE_S


def _reads(name: str, runtime: Any) -> Callable[[Arrays], Any]:
    """Return a call of ``runtime`` on the array of its own name."""
    return lambda arrays: runtime.run({"x": arrays[name]})


def _runtime(graph: Any, directory: Path, target: Target) -> Any:
    import onnx

    directory.mkdir()
    onnx.save(graph, directory / "model.onnx")
    manifest.write_json(directory / "signature.json", {})
    return plugins.find("runtimes", runtime_choice.default(target.runtime))(directory, target.threads)


def _chain(module: nn.Module, shape: Sequence[int]) -> Any:
    """Return an ONNX model of one layer or a sequence: QDQ where they run in integers, the output too."""
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes: list[Any] = []
    constants: dict[str, Any] = {}

    def quantize(x: str, quantizer: Quantizer, at: str) -> str:
        kind = np.int8 if quantizer.spec.scheme == "symmetric" else np.uint8
        constants[f"{at}.s"], constants[f"{at}.z"] = np.float32(0.05), kind(0)
        nodes.append(helper.make_node("QuantizeLinear", [x, f"{at}.s", f"{at}.z"], [f"{at}.q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{at}.q", f"{at}.s", f"{at}.z"], [f"{at}.d"]))
        return f"{at}.d"

    x = "x"
    parts: list[Any] = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    by_row = len(shape) > 1  # a Linear over positions is exported as MatMul, over rows alone as Gemm
    for index, layer in enumerate(parts):
        weight, channels = f"{index}.w", layer.weight.shape[0]
        matmul = by_row and isinstance(layer, nn.Linear)
        size = tuple(layer.weight.shape)[::-1] if matmul else tuple(layer.weight.shape)
        quantized = isinstance(layer, QuantizedConv2d | QuantizedLinear) and has_integer_kernel(layer)
        if quantized:
            x = quantize(x, layer.input_quantizer, f"{index}.x")
            constants[f"{weight}.q"] = np.ones(size, np.int8)
            constants[f"{weight}.s"] = np.full(channels, 0.01, np.float32)
            constants[f"{weight}.z"] = np.zeros(channels, np.int8)
            names = [f"{weight}.q", f"{weight}.s", f"{weight}.z"]
            nodes.append(helper.make_node("DequantizeLinear", names, [weight], axis=1 if matmul else 0))
        else:
            constants[weight] = np.ones(size, np.float32)
        if isinstance(layer, nn.Conv2d):
            same = [step * (size - 1) // 2 for step, size in zip(layer.dilation, layer.kernel_size, strict=True)]
            pads = layer.padding if isinstance(layer.padding, tuple) else same
            shape_of = {"strides": list(layer.stride), "pads": [*pads, *pads], "dilations": list(layer.dilation)}
            conv = helper.make_node("Conv", [x, weight], [f"{index}.y"], group=layer.groups, **shape_of)
            nodes.append(conv)
        elif matmul:
            nodes.append(helper.make_node("MatMul", [x, weight], [f"{index}.y"]))
        else:
            nodes.append(helper.make_node("Gemm", [x, weight], [f"{index}.y"], transB=1))
        x = f"{index}.y"
        if quantized and index == len(parts) - 1:
            x = quantize(x, layer.input_quantizer, "y")
    nodes[-1].output[0] = "y"
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *(f"d{axis}" for axis in range(len(shape)))])
    ]
    graph = helper.make_graph(nodes, "layer", inputs, outputs, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    checker.check_model(made)
    return made


def typical_inputs(split: Split) -> dict[str, Tensor]:
    """Return one row of a split for ``input_shapes``: where rows have several lengths, one of the median length."""
    if split.padding is None:
        return tensors(split[slice(0, 1)][0])
    row = int(np.argsort(split.lengths, kind="stable")[len(split) // 2])
    return tensors(split[slice(row, row + 1)][0])


@torch.no_grad()
def input_shapes(model: nn.Module, names: Sequence[str], inputs: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the input shape of each named layer without the batch, seen in one forward run."""
    shapes: dict[str, tuple[int, ...]] = {}

    def see(name: str, _layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        shapes[name] = tuple(args[0].shape[1:])

    with layer_hooks.before(model, names, see):
        call(model.eval(), inputs)
    return shapes
