"""The only training loop: steps, averages, validation, checkpoints, curves.

Chance is a function of (seed, step, process), never of what ran before, so a killed run that
resumes from its checkpoint ends with the same numbers as one that was never killed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from models.errors import FlawsmithError
from training.recipes import Schedule

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Judgement:
    """A validation: the score a model is chosen by (greater is better), figures, a sample sheet."""

    score: float
    figures: dict[str, float]
    sheet: NDArray[np.uint8]


class Task(Protocol):
    """What the loop optimises; `product` names the network whose average is judged and kept."""

    name: str
    product: str
    networks: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        """One batch on the CPU; called from another thread than `take_step`."""

    def take_step(self, batch: Batch, fabric: Fabric) -> dict[str, Tensor]:
        """Forward, backward and optimiser steps; the losses by name."""

    def judge(self, network: nn.Module) -> Judgement:
        """Validate the averaged network, on validation pictures; in the first process alone."""


class Stateful(Protocol):
    """What a checkpoint keeps."""

    def state_dict(self) -> dict[str, Any]:
        """All that changes while a task is trained."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Go on from what `state_dict` told."""


@runtime_checkable
class Miner(Protocol):
    """A task whose batches also depend on what its own average got wrong: see `mine`."""

    hard: Stateful

    def mine(self, network: nn.Module, rng: np.random.Generator) -> None:
        """Renew `hard`, between two batches, with each validation; the same in every process."""


class RunMixed(FlawsmithError):
    """A checkpoint that belongs to another training than the one it is asked to go on with."""


class Progress:
    """Everything that changes while a task is trained, and its way to disk and back."""

    def __init__(self, task: Task, schedule: Schedule, file: Path, origin: str) -> None:
        self.task, self.file, self.origin = task, file, origin
        self.step = 0
        self.best_score = -math.inf
        self.best: dict[str, Tensor] = {}
        self.figures: dict[str, float] = {}
        self.average = AveragedModel(
            task.networks[task.product],
            multi_avg_fn=get_ema_multi_avg_fn(schedule.ema_decay),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )

    def save(self) -> None:
        """Write the checkpoint; a kill in the middle leaves the one before."""
        state = {
            "origin": self.origin,
            "step": self.step,
            "best_score": self.best_score,
            "best": self.best,
            "figures": self.figures,
            "parts": {name: part.state_dict() for name, part in self._parts().items()},
        }
        new = self.file.with_suffix(".new")
        torch.save(state, new)
        new.replace(self.file)

    def load(self) -> None:
        """Go on from the checkpoint, where there is one. Errors: RunMixed."""
        if not self.file.exists():
            return
        state: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=True)
        if state["origin"] != self.origin:
            raise RunMixed(
                f"{self.file} was begun with other pictures, another recipe or another locator; "
                "train in another run, or delete it to begin this stage anew"
            )
        for name, part in self._parts().items():
            part.load_state_dict(state["parts"][name])
        self.step, self.best_score = state["step"], state["best_score"]
        self.best, self.figures = state["best"], state["figures"]

    def _parts(self) -> dict[str, Stateful]:
        mined = {"hard": self.task.hard} if isinstance(self.task, Miner) else {}
        return {"average": self.average, **self.task.networks, **self.task.optimizers, **mined}


def run_loop(
    task: Task, schedule: Schedule, folder: Path, *, seed: int, fabric: Fabric, origin: str = ""
) -> dict[str, float]:
    """Train a task to the end of its schedule; the figures of the best average.

    origin: what the training depends on; a checkpoint of another origin is refused.
    Errors: RunMixed.

    Leaves `<name>.pt`, the best average's state, `<name>.checkpoint.pt` to resume from, and
    TensorBoard curves and sample sheets under `curves/<name>`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    progress = Progress(task, schedule, folder / f"{task.name}.checkpoint.pt", origin)
    _to_device(task, progress, fabric)
    progress.load()
    witness = Witness(task, schedule, folder, progress) if fabric.is_global_zero else None
    if witness and not progress.step:
        witness.look()
    for batch in _batches(task, schedule, progress.step, seed=seed, rank=fabric.global_rank):
        _set_learning_rate(task, schedule, progress.step)
        torch.manual_seed(_mix(seed, progress.step, fabric.global_rank))
        losses = task.take_step(_on(fabric, batch), fabric)
        progress.average.update_parameters(_bare(task.networks[task.product]))
        progress.step += 1
        if isinstance(task, Miner) and progress.step % schedule.validate_every == 0:
            with torch.no_grad():
                task.mine(progress.average.module.eval(), _mining_rng(seed, progress.step))
        if witness:
            witness.note(losses)
    if witness:
        witness.close()
        torch.save(progress.best, folder / f"{task.name}.pt")
    fabric.barrier()
    return progress.figures


class Witness:
    """Looks on in the first process alone: curves, validations, checkpoints."""

    def __init__(self, task: Task, schedule: Schedule, folder: Path, progress: Progress) -> None:
        self.task, self.schedule, self.progress = task, schedule, progress
        self.curves = SummaryWriter(str(folder / "curves" / task.name), purge_step=progress.step)
        self.bar = tqdm(total=schedule.steps, initial=progress.step, desc=task.name)

    def note(self, losses: dict[str, Tensor]) -> None:
        """After each step: what is due at its number."""
        step, schedule = self.progress.step, self.schedule
        self.bar.update()
        if step % 20 == 0:
            self._write_curves({f"loss/{k}": float(v) for k, v in losses.items()})
        is_last = step == schedule.steps
        if step % schedule.validate_every == 0 or is_last:
            self._judge()
        if step % schedule.checkpoint_every == 0 or step % schedule.validate_every == 0 or is_last:
            self.progress.save()

    def look(self) -> None:
        """Before the first step: what is trained may be good already."""
        self._judge()

    def close(self) -> None:
        """Finish the curves."""
        self.bar.close()
        self.curves.close()

    def _judge(self) -> None:
        """Validate the average; keep it where it is the best so far."""
        progress, network = self.progress, self.progress.average.module.eval()
        with torch.no_grad():
            judgement = self.task.judge(network)
        figures = {name: float(value) for name, value in judgement.figures.items()}
        if judgement.score > progress.best_score:
            progress.best_score, progress.figures = float(judgement.score), figures
            progress.best = {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}
        self._write_curves({f"val/{k}": v for k, v in figures.items()})
        self.curves.add_image("val", judgement.sheet, progress.step, dataformats="HWC")
        shown = ", ".join(f"{k} {v:.3f}" for k, v in figures.items())
        self.bar.write(
            f"{self.task.name} step {progress.step}: score {judgement.score:.4f} ({shown})"
        )

    def _write_curves(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.curves.add_scalar(name, value, self.progress.step)


def _batches(
    task: Task, schedule: Schedule, start: int, *, seed: int, rank: int
) -> Iterator[Batch]:
    """The batches from a step on, each drawn while the step before is taken.

    But for the one after a validation: it may depend on what was mined there.
    """

    def draw(step: int) -> Batch:
        return task.draw_batch(np.random.default_rng([seed, step, rank]))

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as ahead:
        following = ahead.submit(draw, start)
        for step in range(start, schedule.steps):
            batch = following.result()
            waits = (step + 1) % schedule.validate_every == 0
            if waits:
                yield batch
            if step + 1 < schedule.steps:
                following = ahead.submit(draw, step + 1)
            if not waits:
                yield batch


def _mining_rng(seed: int, step: int) -> np.random.Generator:
    """Another than any batch's, and the same in every process."""
    return np.random.default_rng([seed, step, 0, 1])


def _set_learning_rate(task: Task, schedule: Schedule, step: int) -> None:
    """A linear warm-up over 2 % of a cycle, then a cosine to 0 where the schedule decays.

    Source: "SGDR: Stochastic Gradient Descent with Warm Restarts", Loshchilov & Hutter 2017, eq. 5
            (arXiv:1608.03983).
    """
    first, last = (
        (0, schedule.restart) if step < schedule.restart else (schedule.restart, schedule.steps)
    )
    steps = last - first
    factor = min(1.0, (step - first + 1) / max(1.0, 0.02 * steps))
    if schedule.decays:
        factor *= 0.5 * (1 + math.cos(math.pi * (step - first) / steps))
    for optimizer in task.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]


def _to_device(task: Task, progress: Progress, fabric: Fabric) -> None:
    """Let Fabric place and wrap networks and optimisers; the average follows unwrapped."""
    for name, network in task.networks.items():
        network = network.to(memory_format=torch.channels_last)
        task.networks[name] = fabric.setup_module(network)
    for name, optimizer in task.optimizers.items():
        task.optimizers[name] = cast(Optimizer, fabric.setup_optimizers(optimizer))
    progress.average.to(fabric.device)


def _bare(network: nn.Module) -> nn.Module:
    """The network under Fabric's and DistributedDataParallel's wrappers."""
    while isinstance(inner := getattr(network, "module", None), nn.Module):
        network = inner
    return network


def _on(fabric: Fabric, batch: Batch) -> Batch:
    return {name: fabric.to_device(value) for name, value in batch.items()}


def _mix(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
