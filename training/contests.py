"""Every arm draws on the same normal pictures; what it drew is measured and shown by one rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from models.errors import ParameterInvalid
from models.synthesis import Synthesizer
from training.data import Dataset, Record
from training.evaluation import Tally
from training.fidelity import compare, crop_defects, portray
from training.galleries import Gallery, visit
from training.recipes import Recipe
from training.trainers.arms import OURS, Draw, annotate, draw_like_real, plain_arms

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Measure:
    """A column of the fidelity table; more than `enough` is no better."""

    name: str
    title: str
    arrow: str
    digits: int
    enough: float = float("inf")

    def best(self, figures: Mapping[str, Figures]) -> list[str]:
        """The arms that share the best value as shown."""
        worth = {arm: self._worth(row[self.name]) for arm, row in figures.items() if self.has(row)}
        return [arm for arm, value in worth.items() if value == max(worth.values())]

    def has(self, row: Figures) -> bool:
        """Whether it could be taken."""
        return self.name in row

    def tell(self, row: Figures) -> str:
        """Its value as text, with its standard error where it has one."""
        if not self.has(row):
            return "-"
        error = f" ±{row[f'{self.name}_error']:4.0f}" if f"{self.name}_error" in row else ""
        return f"{row[self.name]:.{self.digits}f}{error}"

    def _worth(self, value: float) -> float:
        shown = round(value, self.digits)
        return min(shown, self.enough) if self.arrow == "↑" else -shown


MEASURES = (
    Measure("kid", "KID-like", "↓", 0),
    Measure("diversity", "diversity", "↑", 2, enough=1.0),
    Measure("ks_log_area", "KS log-area", "↓", 2),
    Measure("ks_elongation", "KS elongation", "↓", 2),
    Measure("ks_solidity", "KS solidity", "↓", 2),
    Measure("visible", "visible", "↑", 2),
)


@dataclass(frozen=True)
class Contest:
    """What each arm drew, how it compares with real defects, and whether ours keep their promises.

    figures: those of `training.fidelity.compare` by arm. promises: those of `Tally`.
    """

    galleries: Mapping[str, Gallery]
    figures: Mapping[str, Figures]
    promises: Figures

    def lines(self) -> Iterator[str]:
        """The fidelity table as text, and real halves against each other as its floor."""
        yield f"{'':<14}{'defects':>8}" + "".join(f"{m.title:>15}" for m in MEASURES)
        for arm, row in self.figures.items():
            yield f"{arm:<14}{row['crops']:>8.0f}" + "".join(f"{m.tell(row):>15}" for m in MEASURES)
        floor = next((row for row in self.figures.values() if "kid_floor" in row), None)
        if floor:
            told = f"{floor['kid_floor']:.0f} < {floor['kid_floor_95']:.0f}"
            yield f"{'real halves':<14}{floor['real_crops']:>8.0f}{told:>15}"


def hold_contest(data: Dataset, recipe: Recipe, synthesizer: Synthesizer, *, count: int) -> Contest:
    """Let every arm draw `count` pictures as it does for a segmenter, but on unseen normal ones.

    Normal pictures are validation's; defects, and how many a picture has, are training's. A draw
    that is refused is left out. All are held against validation's defects.
    """
    unseen = replace(data, train=data.train_defects + data.val_normals)
    tally = Tally(synthesizer)

    def draw_ours(rng: np.random.Generator) -> Record:
        try:
            normal, sample = draw_like_real(unseen, synthesizer, rng)
        except ParameterInvalid:
            tally.miss()
            raise
        tally.add(normal, sample)
        return annotate(normal, sample, data.labels)

    draws: dict[str, Draw] = {OURS: draw_ours}
    draws |= {name: arm.draw for name, arm in plain_arms(unseen, recipe).items() if arm.draw}
    galleries = {name: visit(draw_each(draw, count)) for name, draw in draws.items()}
    return Contest(galleries, measure_galleries(galleries, data), tally.figures())


def draw_each(draw: Draw, count: int) -> Iterator[Record]:
    """Pictures of an arm, each from its own seed; one where nothing finds a place is left out."""
    for seed in range(count):
        try:
            yield draw(np.random.default_rng(seed))
        except ParameterInvalid:
            continue


def measure_galleries(galleries: Mapping[str, Gallery], data: Dataset) -> dict[str, Figures]:
    """Fidelity of each gallery against validation's defects."""
    real = portray(crop_defects(data.val))
    return {name: compare(portray(gallery.crops), real) for name, gallery in galleries.items()}
