"""What pairs are worth: the same segmenter, taught by each arm, on pictures it never saw.

Every arm has the same real pictures, the same segmenter, crops and seeds. What is measured is the
end of its training, so nothing is chosen on the validation pictures.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from training.data import Dataset, Record
from training.recipes import DownstreamRecipe, SegmenterName
from training.trainers.arms import OURS, PROCEDURAL, Arm, draw_pairs
from training.trainers.lessons import Lesson
from training.trainers.linear import LinearSegmenter, teach_linear
from training.trainers.loop import run_loop
from training.trainers.pair_task import PairSegmenter, PairTask, PictureJudge

FIGURES = ("picture_ap", "pooled_ap", "f1_max", "iou", "image_auroc")
"""What is measured, the first being what arms are compared by."""


Teach = Callable[[Lesson, int, Path, "Course"], dict[str, float]]
"""(lesson, seed, folder for what a training leaves, what all arms share) -> figures."""


@dataclass(frozen=True)
class Result:
    """One arm with one seed."""

    arm: str
    seed: int
    origin: str
    figures: dict[str, float]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and its spread (of single seeds) or standard error (of differences)."""

    mean: float
    error: float


@dataclass(frozen=True)
class Table:
    """All results, and what follows from them."""

    results: tuple[Result, ...]
    figures: tuple[str, ...] = FIGURES

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms, in the order of their first results."""
        return tuple(dict.fromkeys(r.arm for r in self.results))

    @property
    def best_procedural(self) -> str | None:
        """The procedural arm with the greatest mean of the first figure."""
        present = [arm for arm in self.arms if arm in PROCEDURAL]
        return max(present, key=lambda arm: self.mean(arm, self.figures[0]).mean, default=None)

    def mean(self, arm: str, figure: str) -> Estimate:
        """Mean over seeds, and the spread between them: their standard deviation."""
        values = np.array(list(self._by_seed(arm, figure).values()))
        return Estimate(float(values.mean()), _deviation(values))

    def difference(self, arm: str, than: str, figure: str) -> Estimate:
        """Mean over the seeds that both have of arm - than, and its standard error."""
        first, second = self._by_seed(arm, figure), self._by_seed(than, figure)
        gaps = np.array([first[seed] - second[seed] for seed in first if seed in second])
        if not gaps.size:
            return Estimate(float("nan"), float("nan"))
        return Estimate(float(gaps.mean()), _deviation(gaps) / float(np.sqrt(gaps.size)))

    def lines(self) -> Iterator[str]:
        """The table as text: mean ± spread of each arm, then what ours gains ± standard error."""
        yield f"{'':<24}" + "".join(f"{figure:>18}" for figure in self.figures)
        for arm in self.arms:
            name = f"{arm} ({len(self._by_seed(arm, self.figures[0]))} seeds)"
            yield _line(name, [self.mean(arm, figure) for figure in self.figures])
        for than in (arm for arm in ("classic", self.best_procedural) if arm in self.arms):
            if OURS in self.arms:
                gains = [self.difference(OURS, str(than), figure) for figure in self.figures]
                yield _line(f"{OURS} - {than}", gains)

    def _by_seed(self, arm: str, figure: str) -> dict[int, float]:
        return {r.seed: r.figures[figure] for r in self.results if r.arm == arm}


def run_experiment(
    arms: dict[str, Arm],
    data: Dataset,
    recipe: DownstreamRecipe,
    folder: Path,
    *,
    seeds: Sequence[int],
    fabric: Fabric,
) -> Table:
    """Teach and measure every arm with every seed; a folder holds results of one segmenter.

    Each result is kept in `folder` as `<arm>.<seed>.json`: what is there already is not measured
    again, and several processes share the work, each waiting for the others at the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    judge = PictureJudge(val_pictures(data, recipe), recipe.view)
    course = Course(data, recipe, judge, fabric, SEGMENTERS[recipe.segmenter])
    cells = [(name, seed) for seed in seeds for name in arms]
    done: dict[tuple[str, int], Result] = {}
    for waits in (False, True):
        for name, seed in (cell for cell in cells if cell not in done):
            file = folder / f"{name}.{seed}.json"
            with _claimed(file.with_suffix(".lock"), waits=waits) as is_mine:
                if is_mine:
                    done[name, seed] = _result(arms[name], name, seed, file, course)
    return Table(tuple(done[cell] for cell in cells))


def results_of(run: Path, segmenter: SegmenterName) -> Path:
    """The folder of a run's results with one segmenter."""
    return run / ("downstream" if segmenter == "unet" else f"downstream-{segmenter}")


def read_table(folder: Path, figures: tuple[str, ...] = FIGURES) -> Table:
    """What has been measured so far, in the order of arms and seeds that it was asked for."""
    files = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    return Table(tuple(Result(**json.loads(file.read_text())) for file in files), figures)


@dataclass(frozen=True)
class Course:
    """What all arms share."""

    data: Dataset
    recipe: DownstreamRecipe
    judge: PictureJudge
    fabric: Fabric
    teach: Teach


def val_pictures(data: Dataset, recipe: DownstreamRecipe) -> list[Record]:
    """The validation pictures that are judged: at most so many with and without a defect."""
    rng = np.random.default_rng(0)
    kinds = (tuple(r for r in data.val if r.flaws), data.val_normals)
    return [
        records[i]
        for records, most in zip(kinds, (recipe.val_defects, recipe.val_normals), strict=True)
        for i in sorted(rng.permutation(len(records))[:most])
    ]


def _result(arm: Arm, name: str, seed: int, file: Path, course: Course) -> Result:
    """The result as it was kept, or taught and measured now."""
    told = (arm.origin, arm.is_augmented, course.recipe, course.data.labels)
    digest = hashlib.sha256(repr(told).encode())
    for record in (*course.data.train, *course.judge.records):
        digest.update(record.name.encode())
    origin = digest.hexdigest()
    if file.exists():
        known = Result(**json.loads(file.read_text()))
        if known.origin == origin:
            return known
    figures = _measure(arm, seed, file.with_suffix(f".{origin[:12]}"), course)
    result = Result(name, seed, origin, figures)
    new = file.with_suffix(".new")
    new.write_text(json.dumps(asdict(result), indent=1))
    new.replace(file)
    return result


def _measure(arm: Arm, seed: int, folder: Path, course: Course) -> dict[str, float]:
    """What the segmenter finds that an arm has taught."""
    recipe, data = course.recipe, course.data
    pairs: list[Record] = []
    if arm.draw:
        margin_px = round(1.5 * recipe.side_px / recipe.view / recipe.zoom[0])
        pairs = draw_pairs(arm.draw, recipe.pairs, seed=seed, margin_px=margin_px)
    torch.manual_seed(seed)
    lesson = Lesson(data.train_defects, data.train_normals, pairs, arm.is_augmented)
    return course.teach(lesson, seed, folder, course)


def _teach_unet(lesson: Lesson, seed: int, folder: Path, course: Course) -> dict[str, float]:
    """A network after its last step; what its training left is deleted."""
    task = PairTask(PairSegmenter(), lesson, course.recipe, course.judge)
    schedule = replace(course.recipe.schedule, validate_every=course.recipe.schedule.steps)
    figures = run_loop(task, schedule, folder, seed=seed, fabric=course.fabric)
    shutil.rmtree(folder)
    return figures


def _teach_linear(lesson: Lesson, seed: int, _folder: Path, course: Course) -> dict[str, float]:
    """One linear layer on frozen features."""
    segmenter = LinearSegmenter()
    teach_linear(segmenter, lesson, course.recipe, seed=seed)
    return dict(course.judge(segmenter).figures)


@contextmanager
def _claimed(file: Path, *, waits: bool) -> Iterator[bool]:
    """Whether this process has the lock while the block runs; a killed process holds none."""
    with file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def _deviation(values: NDArray[np.float64]) -> float:
    """The standard deviation of a sample; 0 of one value alone, which tells nothing."""
    return float(values.std(ddof=1)) if values.size > 1 else 0.0


def _line(name: str, estimates: list[Estimate]) -> str:
    return f"{name:<24}" + "".join(f"{e.mean:>+10.3f} ±{e.error:6.3f}" for e in estimates)


SEGMENTERS: dict[SegmenterName, Teach] = {"unet": _teach_unet, "linear": _teach_linear}
