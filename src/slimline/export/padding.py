"""Zeros around an image belong to the convolution that reads them.

TensorFlow's SAME padding is uneven where the stride is 2, and torch writes it as a Pad of its own. Between a ReLU and
its quantizer that keeps both in floats, and the convolution behind it too; as the convolution's ``pads`` it costs
nothing. Zero is on every grid exactly, so it makes no difference on which side of the quantizer the zeros are.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from onnx import helper

from slimline.export.graph import Graph, attribute

PAIR = ("DequantizeLinear", "QuantizeLinear")


def fold(graph: Graph) -> None:
    """Write Pad → Conv, and Pad → QuantizeLinear → DequantizeLinear → Conv, without the Pad.

    It stays where it isn't zeros, reaches over the first two axes, takes something away, or has other readers.
    """
    makers = graph.producer()
    readers = Counter([name for node in graph.nodes for name in node.input])
    readers.update(output.name for output in graph.graph.output)
    for conv in graph.nodes:
        if conv.op_type != "Conv" or attribute(conv, "auto_pad", b"NOTSET") != b"NOTSET":
            continue
        reader, name = conv, conv.input[0]
        while readers[name] == 1 and name in makers and makers[name].op_type in PAIR:
            reader, name = makers[name], makers[name].input[0]
        pad = makers.get(name)
        if pad is None or pad.op_type != "Pad" or readers[name] > 1:
            continue
        found = _zeros(graph, pad)
        if found is None:
            continue
        own = attribute(conv, "pads", [0] * len(found))
        kept = [each for each in conv.attribute if each.name != "pads"]
        del conv.attribute[:]
        conv.attribute.extend([*kept, helper.make_attribute("pads", [a + b for a, b in zip(own, found, strict=True)])])
        reader.input[0] = pad.input[0]


def _zeros(graph: Graph, pad: Any) -> list[int] | None:
    """Return how many zeros a Pad adds, [before each spatial axis, …, after each, …]; None where it does more."""
    if attribute(pad, "mode", b"constant") != b"constant" or (len(pad.input) > 3 and pad.input[3]):
        return None
    value = graph.constants.get(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else np.zeros(())
    widths = graph.constants.get(pad.input[1])
    if value is None or widths is None or np.any(value) or widths.min() < 0:
        return None
    before, after = np.split(widths, 2)
    if before[:2].any() or after[:2].any():
        return None
    return [int(each) for each in (*before[2:], *after[2:])]
