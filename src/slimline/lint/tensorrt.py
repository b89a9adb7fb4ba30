"""Rules for TensorRT (strongly typed, explicit Q/DQ). Each was held against the parser of TensorRT for RTX 1.7.1.

Where that parser is installed it has the last word: what it rejects and no rule names is found too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from slimline import engines
from slimline.export.graph import attribute
from slimline.lint.finding import Finding
from slimline.lint.graph import Graph

QDQ = ("QuantizeLinear", "DequantizeLinear")
INTEGERS = {"int8", "int4", "float8e4m3fn", "float4e2m1"}
UNSUPPORTED = frozenset(
    {
        "AffineGrid", "Bernoulli", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor",
        "CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "ConvInteger", "CumProd", "DFT", "DeformConv",
        "Det", "DynamicQuantizeLinear", "ImageDecoder", "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix",
        "Multinomial", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement", "OptionalHasElement",
        "QLinearConv", "QLinearMatMul", "RegexFullMatch", "SequenceAt", "SequenceConstruct", "SequenceEmpty",
        "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss",
        "SplitToSequence", "StringConcat", "StringNormalizer", "StringSplit", "SwiGLU", "TfIdfVectorizer", "Unique",
    }
)  # fmt: skip
INTEGER_OPS = {"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"}
SAME_TYPES = ("Add", "Sub", "Mul", "Div", "Concat", "Conv", "Gemm", "MatMul")
EXPORT = "export the format onnx-trt"


def findings(graph: Graph) -> Iterator[Finding]:
    """Yield what every rule finds, then what the parser rejects beside that, if it is installed."""
    known = [found for rule in RULES for found in rule(graph)]
    yield from known
    if engines.is_installed() and not any(each.effect == "rejected" for each in known):
        yield from _parser(graph)


def zero_point(graph: Graph) -> Iterator[Finding]:
    """Only zero point 0."""
    for node in graph.of(*QDQ):
        found = graph.zero_point(node)
        if found is not None and np.any(found):
            saw = f"zero point {found.ravel()[np.flatnonzero(found)[0]]}"
            yield Finding("zero-point", graph.place(node), saw, f"quantize symmetrically, or {EXPORT}", "rejected")


def unsigned(graph: Graph) -> Iterator[Finding]:
    """No uint8: weights are rejected, activations of zero point 0 are read as int8 and clipped at half their range."""
    for node in graph.of(*QDQ):
        found = graph.zero_point(node)
        if graph.quantized_type(node) != "uint8" or (found is not None and np.any(found)):
            continue
        stored = node.op_type == "DequantizeLinear" and node.input[0] in graph.constants
        saw = "uint8 weights" if stored else "uint8 with zero point 0, read as int8: clipped at 127 of 255 steps"
        yield Finding(
            "unsigned", graph.place(node), saw, f"store int8, or {EXPORT}", "rejected" if stored else "misread"
        )


def integer_bias(graph: Graph) -> Iterator[Finding]:
    """No int32 DequantizeLinear."""
    for node in graph.of("DequantizeLinear"):
        if graph.type_name(node.input[0]) == "int32":
            saw = "an int32 bias is dequantized"
            yield Finding("integer-bias", graph.place(node), saw, f"keep biases float, or {EXPORT}", "rejected")


def width(graph: Graph) -> Iterator[Finding]:
    """8-bit and 4-bit integers and floats, no others."""
    for node in graph.of(*QDQ):
        found = graph.quantized_type(node)
        if found not in INTEGERS | {"uint8", "int32", "?"}:
            yield Finding("width", graph.place(node), f"{found} values", f"quantize to 8 bits, or {EXPORT}", "rejected")


def scale(graph: Graph) -> Iterator[Finding]:
    """Scales are positive."""
    for node in graph.of(*QDQ):
        found = graph.constants.get(node.input[1])
        if found is not None and not np.all(found > 0):
            saw = f"a scale of {found.ravel()[np.flatnonzero(~(found > 0))[0]]:g}"
            yield Finding("scale", graph.place(node), saw, "give it a positive scale", "rejected")


def operator(graph: Graph) -> Iterator[Finding]:
    """Operators that the parser knows."""
    for node in graph.nodes:
        if node.domain in {"", "ai.onnx"} and node.op_type in UNSUPPORTED:
            change = "write it as QuantizeLinear and DequantizeLinear" if node.op_type in INTEGER_OPS else "replace it"
            yield Finding("operator", graph.place(node), f"TensorRT has no {node.op_type}", change, "rejected")


def mixed_types(graph: Graph) -> Iterator[Finding]:
    """Both sides of an operator have one type: a strongly typed network casts nothing by itself."""
    for node in graph.of(*SAME_TYPES):
        kinds = sorted({graph.type_name(name) for name in node.input if name} - {"?"})
        if len(kinds) > 1:
            saw, change = f"{' and '.join(kinds)} inputs", "put a Cast before one of them"
            yield Finding("mixed-types", graph.place(node), saw, change, "rejected")


def channel_activation(graph: Graph) -> Iterator[Finding]:
    """Activations have one scale: with one a channel no integer kernel fits."""
    for node in graph.of("QuantizeLinear"):
        found = graph.constants.get(node.input[1])
        if found is not None and found.size > 1 and node.input[0] not in graph.constants:
            saw, change = f"{found.size} scales on an activation", "quantize activations per tensor"
            yield Finding("channel-activation", graph.place(node), saw, change, "slow")


def weight_axis(graph: Graph) -> Iterator[Finding]:
    """A convolution's weights have one scale for each output channel, not for each input channel."""
    for node in graph.of("Conv"):
        weight = graph.maker(graph.input(node, 1), "DequantizeLinear")
        scales = graph.constants.get(weight.input[1]) if weight is not None else None
        if scales is not None and scales.size > 1 and attribute(weight, "axis", 1) != 0:
            saw = f"weights with a scale for each step of axis {attribute(weight, 'axis', 1)}"
            yield Finding("weight-axis", graph.place(node), saw, "quantize them along axis 0", "slow")


def residual(graph: Graph) -> Iterator[Finding]:
    """A sum in an integer network has both inputs quantized, else it runs in floats."""
    if not graph.of(*QDQ):
        return
    for node in graph.of("Add"):
        if any(name in graph.constants for name in node.input):
            continue
        floats = [name for name in node.input if graph.maker(name, "DequantizeLinear") is None]
        if floats:
            saw = f"a sum whose input {floats[0]!r} is not quantized"
            yield Finding("residual", graph.place(node), saw, "put Q/DQ on both inputs of the sum", "slow")


def dynamic_axis(graph: Graph) -> Iterator[Finding]:
    """The batch alone is dynamic: the parser takes any other axis, the builder only with a range of its own."""
    for value in graph.model.graph.input:
        for index, axis in enumerate(value.type.tensor_type.shape.dim):
            if index and axis.dim_param:
                saw = f"axis {index} is dynamic ({axis.dim_param})"
                change = (
                    f"fix it, or give the format tensorrt its range: axes: {{{axis.dim_param}: [least, best, most]}}"
                )
                yield Finding("dynamic-axis", f"input {value.name!r}", saw, change, "not built")


def _parser(graph: Graph) -> Iterator[Finding]:
    for index, _, message in engines.Parsed(graph.model.SerializeToString()).errors:
        place = graph.place(graph.nodes[index]) if 0 <= index < len(graph.nodes) else "the model"
        yield Finding("parser", place, message, "change what TensorRT's parser names", "rejected")


RULES: tuple[Callable[[Graph], Iterator[Finding]], ...] = (
    zero_point, unsigned, integer_bias, width, scale, operator, mixed_types, channel_activation, weight_axis, residual,
    dynamic_axis,
)  # fmt: skip
