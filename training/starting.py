"""The weights of a sealed bundle's generators as the start of a new training."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from models.bundle import verify_bundle
from models.errors import FlawsmithError

Weights = dict[str, Tensor]

BOOK = "book."
"""Pages, and what opens them, are the product's own: a training fills its book before it starts."""


class StartMismatch(FlawsmithError):
    """The graph to start from was made by another network than the one that is to be trained."""


def start_from_bundle(
    network: nn.Module, folder: Path, stage: str, labels: tuple[str, ...]
) -> list[str]:
    """Start a stage's generator from a bundle's; labels of the same name keep their embedding.

    Errors: those of `verify_bundle`; StartMismatch.
    """
    known = verify_bundle(folder).labels
    return start_from(network, folder / f"{stage}.onnx", labels=labels, known=known)


def start_from(
    network: nn.Module,
    onnx_file: Path,
    *,
    labels: tuple[str, ...] = (),
    known: tuple[str, ...] = (),
) -> list[str]:
    """Copy the weights of an exported generator into a new one of the same recipe; their names.

    The network's book stays as it is, and may have another number of pages. All other weights must
    fit, by name and shape, but for label embeddings. Those go by name: `labels` are the
    network's, `known` the graph's, and a label that is not known starts at the mean of all known
    ones. Without names they go by place, or all from the mean where the numbers differ.

    Errors: StartMismatch with the first weights that do not fit; the network is left as it was.
    """
    given, wanted = _beside_book(_read_weights(onnx_file)), _beside_book(network.state_dict())
    for name in _label_embeddings(network) & given.keys():
        given[name] = _meet_labels(given[name], len(wanted[name]), labels, known)
    misfits = _misfits(given, wanted)
    if misfits:
        more = f"; and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise StartMismatch(
            f"{'/'.join(onnx_file.parts[-3:])} was made by a network of another width or "
            f"architecture: {'; '.join(misfits[:3])}{more}"
        )
    network.load_state_dict(network.state_dict() | given)
    return list(wanted)


def _read_weights(onnx_file: Path) -> Weights:
    """The named weights of a graph; what the exporter computed itself is called onnx::…"""
    graph = onnx.load(onnx_file).graph
    return {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in graph.initializer
        if not tensor.name.startswith("onnx::")
    }


def _beside_book(weights: Weights) -> Weights:
    """All weights but those of a book."""
    return {name: value for name, value in weights.items() if not name.startswith(BOOK)}


def _label_embeddings(network: nn.Module) -> set[str]:
    """Names of the weights with a row for each label: embeddings are for nothing else."""
    modules = network.named_modules()
    return {f"{name}.weight" for name, module in modules if isinstance(module, nn.Embedding)}


def _meet_labels(
    rows: Tensor, count: int, labels: tuple[str, ...], known: tuple[str, ...]
) -> Tensor:
    """The rows of `count` labels out of those of the known ones."""
    mean = rows.mean(0)
    if labels:
        return torch.stack([rows[known.index(k)] if k in known else mean for k in labels])
    return rows if len(rows) == count else mean.expand(count, -1)


def _misfits(given: Weights, wanted: Weights) -> list[str]:
    """What does not fit, one reason each, in the network's order."""
    lacking = [f"it has no {name}" for name in wanted if name not in given]
    unlike = [
        f"{name} is {tuple(given[name].shape)}, here {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in given and given[name].shape != value.shape
    ]
    unknown = [f"{name} has no place here" for name in given if name not in wanted]
    return unlike + lacking + unknown
