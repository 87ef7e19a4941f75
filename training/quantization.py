"""fp32 graph -> int8 graph, calibrated on pictures.

Source: "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", Jacob et al. 2018 (arXiv:1712.05877), by ONNX Runtime's static quantization.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

QUANTIZED = ("Conv", "MatMul", "Add", "Relu", "Clip", "GlobalAveragePool")
"""What is computed in whole numbers; the rest is cheap, or moves values about."""


def quantize_graph(
    source: Path, target: Path, images: Iterable[NDArray[np.uint8]], *, first_in_floats: int = 0
) -> None:
    """Write a graph's int8 form; each of its activations gets the range that it has on `images`.

    first_in_floats: so many convolutions from the start stay as they are.

    Weights have 7 bits and a scale for each channel: with 8, processors without VNNI would
    saturate, and a bundle would answer otherwise there. What leaves the last layer are floats, for
    256 levels are too few for a logit that is told in thousandths: of a matrix product its sums,
    while a last convolution is one of floats.

    Shapes: images, each what the graph's input `image` takes.
    """
    with TemporaryDirectory() as made, _silenced():
        prepared = Path(made) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        first = [str(node.name) for node in graph.node if node.op_type == "Conv"][:first_in_floats]
        quantize_static(
            str(prepared),
            str(target),
            _Images(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=first + _kept_in_floats(graph) + _telling_shapes(graph),
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: Iterable[NDArray[np.uint8]]) -> None:
        self._left: Iterator[NDArray[np.uint8]] = iter(images)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        image = next(self._left, None)
        return None if image is None else {"image": image}


def _kept_in_floats(graph: onnx.GraphProto) -> list[str]:
    """Names of all nodes after the layer that the first output comes from; a convolution too."""
    producers = {name: node for node in graph.node for name in node.output}
    last = producers[graph.output[0].name]
    while last.op_type not in ("Conv", "MatMul"):
        last = producers[next(name for name in last.input if name in producers)]
    names, reached = [], set(last.output)
    for node in graph.node:
        if reached & set(node.input):
            names.append(str(node.name))
            reached |= set(node.output)
    return [*names, str(last.name)] if last.op_type == "Conv" else names


def _telling_shapes(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that compute shapes alone: 256 levels would round a picture's size."""
    fixed = {one.name for one in graph.initializer}
    fixed |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    names, told = [], set[str]()
    for node in graph.node:
        inputs = {name for name in node.input if name} - fixed
        if node.op_type == "Shape" or (inputs and inputs <= told):
            names.append(str(node.name))
            told |= set(node.output)
    return names


@contextmanager
def _silenced() -> Iterator[None]:
    """The quantizer advises on standard error, at every call, what is done here already."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
