"""torch -> ONNX behind a parity gate."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.devices import Device
from models.errors import FlawsmithError
from models.session import open_graph

OPSET = 20
LARGEST_GAP = 2e-3
"""What the two runtimes may differ by, in logits or in shares of 1."""

Arrays = dict[str, Tensor]


class ExportMismatch(FlawsmithError):
    """The ONNX graph does not compute what the network computes."""


@dataclass(frozen=True)
class Exported:
    """How one network becomes a graph.

    traced: example inputs by name, in the order of `forward`.
    other:  inputs of another batch, and of another size where sizes are free: a frozen axis fails.
    free:   input name -> {axis: name} of the axes that stay free.
    derived: what the last output is of the first, where it chooses among almost equal values: it
            is compared on the graph's own first output, to the bit.
    keeps_weights: every weight keeps its name and shape, so that a training can start from it.
    """

    network: nn.Module
    traced: Arrays
    other: Arrays
    outputs: tuple[str, ...]
    free: dict[str, dict[int, str]]
    derived: Callable[[Tensor], Tensor] | None = None
    keeps_weights: bool = False


def export_graph(exported: Exported, path: Path) -> float:
    """Write a network as ONNX and prove that it computes the same; the largest gap found.

    Errors: ExportMismatch, and the file is gone, where the graph fails or any output differs by
            more than LARGEST_GAP on inputs unlike the traced ones.
    """
    network = exported.network.eval().to(memory_format=torch.contiguous_format)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        torch.onnx.export(
            network,
            tuple(exported.traced.values()),
            str(path),
            input_names=list(exported.traced),
            output_names=list(exported.outputs),
            dynamic_axes=exported.free,
            opset_version=OPSET,
            do_constant_folding=not exported.keeps_weights,
            keep_initializers_as_inputs=exported.keeps_weights,
            dynamo=False,
        )
    if exported.keeps_weights:
        _hide_weights(path)
    try:
        gap = max(
            largest_gap(network, path, given, exported.derived)
            for given in (exported.traced, exported.other)
        )
    except Exception as error:
        path.unlink()
        raise ExportMismatch(f"{path.name} does not run as the network does: {error}") from error
    if not gap <= LARGEST_GAP:
        path.unlink()
        raise ExportMismatch(f"{path.name} is off by {gap:.2e}; the gate allows {LARGEST_GAP:.0e}")
    return gap


def largest_gap(
    network: nn.Module,
    path: Path,
    given: Arrays,
    derived: Callable[[Tensor], Tensor] | None = None,
) -> float:
    """The largest absolute difference of any output on the same inputs; infinite between shapes."""
    graph = open_graph(path, Device("cpu", threads=1))
    answers = graph(**{name: value.numpy() for name, value in given.items()})
    with torch.no_grad():
        truth = network(*given.values())
        truths = truth if isinstance(truth, tuple) else (truth,)
        if derived:
            truths = (*truths[:-1], derived(torch.from_numpy(answers[0])))
    return max(
        float(np.abs(answer - true.numpy()).max()) if answer.shape == true.shape else math.inf
        for answer, true in zip(answers, truths, strict=True)
    )


def _hide_weights(path: Path) -> None:
    """Take the weights off a graph's inputs, where alone the exporter leaves equal ones apart.

    What is no input is a constant to the runtime, which folds it as the exporter would have.
    """
    model = onnx.load(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [given for given in model.graph.input if given.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    onnx.save(model, path)


def random_pixels(rng: np.random.Generator, *shape: int) -> Tensor:
    """uint8 noise of a shape: every level in every place."""
    levels: NDArray[np.uint8] = rng.integers(0, 256, shape, np.uint8)
    return torch.from_numpy(levels)
