from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.devices import Device
from models.session import open_graph
from training.export import (
    LARGEST_GAP,
    Exported,
    ExportMismatch,
    export_graph,
    largest_gap,
    random_pixels,
)

BATCH = {"x": {0: "batch"}, "y": {0: "batch"}}


class Honest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 + 1


class FrozenBatch(nn.Module):
    """Its batch becomes a constant of the graph, for the tracer sees a number."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(int(x.shape[0]), 2, 2) + torch.zeros([int(x.shape[0]), 2, 2])


class SquashedBatch(nn.Module):
    """Answers the first of its batch, however many are asked."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[i] for i in range(len(x))])


class Branching(nn.Module):
    """Chooses by its input, in Python: the tracer follows one way."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if bool(x.mean() > 0) else x * 3


class Nowhere(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / torch.zeros_like(x) * 0


def exported(network: nn.Module, *, other: Tensor | None = None) -> Exported:
    other = torch.full((3, 4), -1.0) if other is None else other
    return Exported(network, {"x": torch.ones(1, 4)}, {"x": other}, ("y",), BATCH)


def test_an_honest_network_passes_and_answers_the_same(tmp_path):
    gap = export_graph(exported(Honest()), tmp_path / "g.onnx")

    (answer,) = open_graph(tmp_path / "g.onnx", Device("cpu"))(x=np.full((2, 4), 3, np.float32))
    assert gap <= 1e-6
    assert answer.tolist() == [[7.0] * 4] * 2


@pytest.mark.parametrize("network", [FrozenBatch(), SquashedBatch(), Branching(), Nowhere()])
def test_a_graph_that_computes_something_else_is_refused_and_gone(tmp_path, network):
    with pytest.raises(ExportMismatch, match=r"g\.onnx"):
        export_graph(exported(network), tmp_path / "g.onnx")

    assert list(tmp_path.iterdir()) == []


def test_a_branch_that_the_other_inputs_never_take_is_not_seen(tmp_path):
    taken_twice = exported(Branching(), other=torch.ones(3, 4))

    assert export_graph(taken_twice, tmp_path / "g.onnx") <= LARGEST_GAP


def test_the_gap_is_the_largest_of_all_differences(tmp_path):
    export_graph(exported(Honest()), tmp_path / "g.onnx")

    class Shifted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 + 1 + torch.tensor([0.0, 0.0, 0.25, 0.0])

    assert largest_gap(Shifted(), tmp_path / "g.onnx", {"x": torch.ones(2, 4)}) == 0.25


def test_random_pixels_fill_every_level():
    pixels = random_pixels(np.random.default_rng(0), 1, 64, 64, 3)

    assert pixels.dtype == torch.uint8
    assert pixels.shape == (1, 64, 64, 3)
    assert len(pixels.unique()) == 256


class Ranking(nn.Module):
    """A noisy value, and where it is greatest: the runtimes may not agree on the place."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = (x * 1e-3).tanh()
        return values, self.rank(values)

    @staticmethod
    def rank(values: Tensor) -> Tensor:
        return values.argmax(1).float() if torch.onnx.is_in_onnx_export() else values[:, 0] * 0 + 1


def test_a_derived_output_is_compared_on_the_graphs_own_first_output(tmp_path):
    given = torch.tensor([[1.0, 3.0, 2.0, 0.0]])
    free = {"x": {0: "batch"}, "values": {0: "batch"}, "rank": {0: "batch"}}
    ranked = Exported(Ranking(), {"x": given}, {"x": given.repeat(3, 1)}, ("values", "rank"), free)

    right = export_graph(replace(ranked, derived=Ranking.rank), tmp_path / "right.onnx")

    assert right <= 1e-6
    with pytest.raises(ExportMismatch, match="off by 2"):
        export_graph(replace(ranked, derived=lambda v: v[:, 0] * 0 + 3), tmp_path / "wrong.onnx")
