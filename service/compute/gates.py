"""The one place that every graph call of every request passes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from numpy.typing import NDArray
from prometheus_client import Counter

from models.bundle import Bundle, warm_up
from models.detection import BATCH
from models.errors import DeviceLost
from models.graphs import GraphCall
from service.compute.batching import Arrays, Batches, Outputs, Sharing, rows_of
from service.compute.failures import Failures
from service.compute.tickets import TICKET
from service.graph_metrics import GraphMetrics
from service.settings import Settings

FEW_SHAPES = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
"""Providers for which each new shape of an input costs a search and memory."""


class Gate:
    """A graph as requests call it: in their turn, with others, and only while somebody waits.

    example: what it was warmed up with. note: told how to try it again when it fails, and on which
    device.
    """

    def __init__(
        self,
        graph: GraphCall,
        sharing: Sharing,
        example: Arrays,
        note: Callable[[Callable[[], None], int], None],
        answered: Counter,
    ) -> None:
        self._batches = Batches(graph, sharing)
        self._sizes = sharing.sizes
        self._example = example
        self._note = note
        self._answered = answered

    def __call__(self, **arrays: NDArray[Any]) -> Outputs:
        """The graph's outputs.

        Errors: DeviceLost, which is noted; ClientDisconnect when nobody waits any more.
        """
        ticket = TICKET.get()
        if ticket is None:
            self._example.update(arrays)
            return self._batches.run_filled(arrays)
        ticket.go_on()
        try:
            outputs = self._batches.run(arrays, ticket.given_up.is_set)
        except DeviceLost:
            self._note(self.try_again, ticket.device)
            raise
        self._answered.inc(rows_of(arrays))
        return outputs

    def try_again(self) -> None:
        """Run on what it was warmed up with. Errors: DeviceLost."""
        if self._example:
            self._batches.run_filled(self._example)

    def warm_up(self) -> None:
        """Run once in every number of rows that requests will bring. Errors: DeviceLost."""
        if self._example:
            for size in self._sizes:
                rows = {name: array[:1].repeat(size, 0) for name, array in self._example.items()}
                self._batches.run_filled(rows)


def serve(bundle: Bundle, settings: Settings, metrics: GraphMetrics, failures: Failures) -> Bundle:
    """The same bundle with a gate before each graph, warm in every shape. Blocking.

    Errors: DeviceLost when a graph fails.
    """
    gates: list[Gate] = []
    examples: dict[str, Arrays] = {}

    def wrap(name: str, graph: GraphCall) -> GraphCall:
        of = (bundle.manifest.product, name)
        full_name = f"{bundle.manifest.product} {bundle.manifest.version} {name}"
        gate = Gate(
            _counted(graph, full_name, partial(metrics.measure, *of)),
            sharing_of(name, bundle, settings),
            examples.setdefault(name, {}),
            partial(failures.note, full_name),
            metrics.rows.labels(*of),
        )
        gates.append(gate)
        return gate

    served = bundle.through(wrap)
    warm_up(served)
    for gate in gates:
        gate.warm_up()
    return served


def sharing_of(name: str, bundle: Bundle, settings: Settings) -> Sharing:
    """How requests share a graph's runs.

    A CPU is as long at two rows together as at one after the other, so there nobody waits for a
    run that is at work; elsewhere one run at a time is all that the device does.
    """
    asked = {
        "segmenter": settings.batch_size,
        "mask_generator": settings.batch_samples,
        "defect_generator": settings.batch_samples,
    }
    if name not in asked or name not in bundle.open_batches:
        return Sharing()
    has_few_shapes = bundle.providers[0] in FEW_SHAPES
    rows = max(asked[name], BATCH if name == "segmenter" else 1)
    return Sharing(
        most=asked[name],
        window_s=settings.batch_window_ms / 1000.0,
        at_once=1 if has_few_shapes else None,
        sizes=_doublings(rows) if has_few_shapes else (),
    )


def _counted(
    graph: GraphCall, name: str, measure: Callable[[int], AbstractContextManager[None]]
) -> GraphCall:
    def run(**arrays: NDArray[Any]) -> Outputs:
        try:
            with measure(rows_of(arrays)):
                return graph(**arrays)
        except Exception as error:
            raise DeviceLost(f"{name}: {error}") from error

    return run


def _doublings(most: int) -> tuple[int, ...]:
    return tuple(2**power for power in range((most - 1).bit_length() + 1))
