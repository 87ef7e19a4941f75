"""One HTML file that a person judges a product's synthesis by: figures, and many pictures."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from models.arrays import RgbImage
from models.manifest import Manifest
from models.steps.pictures import encode_jpeg
from training.contests import MEASURES, Contest, Figures
from training.data import Dataset
from training.downstream import Table
from training.evaluation import PROMISES
from training.galleries import show_steps, visit
from training.trainers.arms import OURS

CLEAR = 2.0
"""Standard errors from which a paired difference is called clear."""
TITLES = {
    "picture_ap": "picture AP",
    "pooled_ap": "pooled AP",
    "f1_max": "F1-max",
    "iou": "IoU",
    "image_auroc": "image AUROC",
    "recall_at_0.1": "recall at 0.1 false regions",
    "recall_at_0.5": "recall at 0.5",
    "recall_at_1": "recall at 1",
    "coverage_at_1": "coverage by 1 crop",
    "coverage_at_5": "by 5 crops",
}
REJECTION_BAR, KS_BAR, DIVERSITY_BAR, VISIBLE_BAR = 0.1, 0.2, 0.9, 0.9


@dataclass(frozen=True)
class Line:
    """One line of a downstream table: figure -> mean, and spread or standard error over seeds."""

    name: str
    seeds: int
    values: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Comparison:
    """A downstream experiment: mean ± spread of each arm, paired differences ± standard error."""

    title: str
    arms: Sequence[Line]
    differences: Sequence[Line]

    def best(self, figure: str) -> float:
        """The greatest mean of a column, as shown."""
        return max(round(line.values[figure][0], 3) for line in self.arms)


@dataclass(frozen=True)
class Card:
    """One goal at a glance."""

    title: str
    value: str
    bar: str
    holds: bool


def write_report(
    file: Path,
    about: Mapping[str, str],
    data: Dataset,
    contest: Contest,
    comparisons: Sequence[Comparison] = (),
) -> None:
    """Write the page: every picture is inside the file, and nothing in it runs.

    `about` names the product and whatever else stands in the header. The sheet of real defects
    shows any; it and the sheet of ours are left beside the page as JPEG too.
    """
    real_sheet, figures = visit(data.train + data.val).sheet(), contest.figures
    sheets = {name: gallery.sheet() for name, gallery in contest.galleries.items()}
    normals = data.val_normals + data.train_normals
    page = (
        new_environment()
        .get_template("report.html")
        .render(
            about=about,
            ours=OURS,
            cards=list(judge_goals(contest.promises, figures, comparisons)),
            promises=contest.promises,
            figures=figures,
            columns=[(measure, measure.best(figures)) for measure in MEASURES],
            floor=next((row for row in figures.values() if "kid_floor" in row), {}),
            comparisons=comparisons,
            titles=TITLES,
            clear=CLEAR,
            labels=data.labels,
            sheets=sheets,
            real_sheet=real_sheet,
            steps={
                name: [show_steps(record, normals) for record in gallery.records]
                for name, gallery in contest.galleries.items()
            },
        )
    )
    file.write_text(page, encoding="utf-8")
    for name, sheet in ((OURS, sheets[OURS]), ("real", real_sheet)):
        file.with_name(f"{file.stem}-{name}.jpg").write_bytes(encode_jpeg(sheet))


def describe_bundle(manifest: Manifest) -> dict[str, str]:
    """What made our samples, where it is sealed."""
    return {
        "product": manifest.product,
        "version": manifest.version,
        "made": f"{manifest.created:%d %B %Y}",
        "recipe": manifest.training.recipe,
        "commit": manifest.training.commit[:12],
    }


def describe_run(about: Mapping[str, Any]) -> dict[str, str]:
    """What made our samples, where it is a run's own generators."""
    return {"product": about["product"], "version": "not sealed", "recipe": about["recipe"]}


def describe_data(data: Dataset, *, count: int) -> dict[str, str]:
    """What every arm had and drew, and what it is measured by."""
    real = sum(len(record.flaws) for record in data.val)
    return {
        "labels": ", ".join(data.labels),
        "taught by": f"{len(data.train_defects)} defect pictures, {len(data.train_normals)} normal",
        "measured on": f"{real} other defects, {len(data.val_normals)} normal pictures",
        "each arm": f"{count} pictures",
    }


def judge_goals(
    promises: Figures, figures: Mapping[str, Figures], comparisons: Sequence[Comparison]
) -> Iterator[Card]:
    """What our arm must reach, and whether it does."""
    kept = min(promises[f"promise_{name}"] for name in PROMISES)
    yield Card("promises kept", f"{kept:.3f}", "every one: 1.000", kept == 1.0)
    rate = promises["rejection_rate"]
    yield Card(
        "draws rejected", f"{rate:.1%}", f"at most {REJECTION_BAR:.0%}", rate <= REJECTION_BAR
    )
    own = figures.get(OURS, {})
    others = [row["kid"] for arm, row in figures.items() if arm != OURS and "kid" in row]
    if "kid" in own and others:
        near = own["kid"] - own["kid_error"] <= min(others)
        bar = f"± {own['kid_error']:.0f}; best other arm {min(others):.0f}"
        yield Card("KID-like", f"{own['kid']:.0f}", bar, near)
    if "diversity" in own:
        value = own["diversity"]
        bar = f"at least {DIVERSITY_BAR} of real ones"
        yield Card("diversity", f"{value:.2f}", bar, value >= DIVERSITY_BAR)
    if "visible" in own:
        worst = max(own[m.name] for m in MEASURES if m.name.startswith("ks_"))
        yield Card("worst mask KS", f"{worst:.2f}", f"at most {KS_BAR:.2f}", worst <= KS_BAR)
        seen = own["visible"]
        yield Card("visible", f"{seen:.2f}", f"real ones {VISIBLE_BAR}", seen >= VISIBLE_BAR)
    for comparison in comparisons:
        yield from _judge_gain(comparison)


def compare_arms(title: str, table: Table) -> Comparison:
    """A downstream table as the report shows it: ours against every other arm, seed by seed.

    One shared seed alone tells no difference, for it has no error.
    """
    seeds = {arm: {r.seed for r in table.results if r.arm == arm} for arm in table.arms}
    means = []
    for arm in table.arms:
        found = {figure: table.mean(arm, figure) for figure in table.figures}
        values = {figure: (e.mean, e.error) for figure, e in found.items()}
        means.append(Line(arm, len(seeds[arm]), values))
    gains = []
    for arm in table.arms:
        shared = seeds.get(OURS, set()) & seeds[arm]
        if arm != OURS and len(shared) > 1:
            found = {figure: table.difference(OURS, arm, figure) for figure in table.figures}
            values = {figure: (e.mean, e.error) for figure, e in found.items()}
            gains.append(Line(f"{OURS} − {arm}", len(shared), values))
    return Comparison(title, means, gains)


def new_environment() -> Environment:
    """Where the pages' templates are, with what they may ask for."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["address"] = as_address
    return environment


def as_address(image: RgbImage) -> str:
    """A picture as a `data:` address, which needs no other file."""
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image, 88)).decode()


def _judge_gain(comparison: Comparison) -> Iterator[Card]:
    """The smallest paired gain in the first figure over any other arm."""
    gains = [(*next(iter(line.values.values())), line.name) for line in comparison.differences]
    if gains:
        mean, error, name = min(gains)
        yield Card(comparison.title, f"{mean:+.3f}", f"± {error:.3f}; {name}", mean > error)
