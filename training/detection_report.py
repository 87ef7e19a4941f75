"""One HTML file that a person judges a product's detection by: curves, verdicts, and the worst."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from models.arrays import RgbImage
from training.charts import Axis, Line, as_steps, draw_chart
from training.evaluation import CROPS, Findings
from training.galleries import show_scene
from training.regions import (
    draw_curve,
    look_up_flaws,
    measure_reliability,
    part_predictions,
)
from training.report import Card, new_environment

WORST = 24
"""Pictures of each kind of error."""
SHARE = Axis("", (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
FALSE_ACCEPT_BAR, FALSE_REJECT_BAR = 0.05, 0.1
RECALL_BAR, COVERAGE_BAR, DICE_BAR, AUROC_BAR = 0.9, 0.95, 0.86, 0.95


@dataclass(frozen=True)
class Scene:
    """A picture of an error, and what stands below it."""

    image: RgbImage
    title: str
    score: float


def write_detection_report(
    file: Path, about: Mapping[str, str], found: Findings, figures: Mapping[str, float]
) -> None:
    """Write the page: every picture and curve is inside the file, and nothing in it runs."""
    page = (
        new_environment()
        .get_template("detection_report.html")
        .render(
            about=about,
            params=found.params,
            cards=judge_detection(figures),
            figures=figures,
            charts=draw_charts(found, figures),
            false_alarms=worst_false_alarms(found),
            misses=worst_misses(found),
        )
    )
    file.write_text(page, encoding="utf-8")


def describe_findings(found: Findings) -> dict[str, str]:
    """What the figures are measured on."""
    bad = [record for record in found.records if record.flaws]
    flaws = sum(len(record.flaws) for record in bad)
    groups = len({record.group for record in found.records})
    return {
        "measured on": f"{len(found.records)} pictures of {groups} groups",
        "of them bad": f"{len(bad)} with {flaws} defects",
    }


def judge_detection(figures: Mapping[str, float]) -> list[Card]:
    """What detection must reach, and whether it does."""
    least = (
        ("recall at 0.5 false regions", "recall_at_0.5_false_regions", RECALL_BAR),
        ("coverage by five crops", "coverage_at_5", COVERAGE_BAR),
        ("Dice of pixels", "pixel_dice", DICE_BAR),
        ("image AUROC", "image_auroc", AUROC_BAR),
    )
    most = (
        ("bad parts called good", "false_accept_rate", FALSE_ACCEPT_BAR),
        ("good parts called bad", "false_reject_rate", FALSE_REJECT_BAR),
    )
    cards = [
        Card(title, f"{figures[name]:.3f}", f"at least {bar:g}", figures[name] >= bar)
        for title, name, bar in least
    ]
    return cards + [
        Card(title, f"{figures[name]:.1%}", f"at most {bar:.0%}", figures[name] <= bar)
        for title, name, bar in most
    ]


def draw_charts(found: Findings, figures: Mapping[str, float]) -> dict[str, Markup]:
    """FROC, reliability of the scores, and coverage against the number of crops."""
    curve = draw_curve(found.records, found.predictions)
    points = [(0.0, 0.0), *zip(curve.per_image.tolist(), curve.recall.tolist(), strict=True)]
    froc = Line("defects found", as_steps([*points, (2.0, points[-1][1])]))
    error, bins = measure_reliability(found.records, found.predictions)
    total = sum(one.count for one in bins)
    sure = Line(
        f"regions; calibration error {error:.3f}",
        [(one.score, one.share_true) for one in bins],
        [one.count / total for one in bins],
    )
    rules = {"one for each peak": "", "the n greatest pixels": "_literal"}
    covered = [
        Line(name, [(float(n), figures[f"coverage_at_{n}{rule}"]) for n in CROPS], [0.0] * 4)
        for name, rule in rules.items()
    ]
    return {
        "Defects found against false regions per picture": draw_chart(
            [froc], Axis("false regions per picture", (0.0, 0.5, 1.0, 1.5, 2.0)), SHARE
        ),
        "Share of true regions against their score": draw_chart(
            [sure], Axis("score", SHARE.ticks), SHARE, ideal=((0.0, 0.0), (1.0, 1.0))
        ),
        "Defects shown by n crops": draw_chart(
            covered, Axis("crops", tuple(float(n) for n in CROPS)), SHARE
        ),
    }


def worst_false_alarms(found: Findings) -> list[Scene]:
    """The regions of the greatest score that find no defect."""
    false = [
        (record, one)
        for record, one, is_true in part_predictions(found.records, found.predictions)
        if not is_true
    ]
    false.sort(key=lambda told: -told[1].score)
    return [
        Scene(show_scene(record, one.region, [one.region]), Path(record.name).name, one.score)
        for record, one in false[:WORST]
    ]


def worst_misses(found: Findings) -> list[Scene]:
    """The defects that the limit hides, the least sure first, of equals the largest."""
    looks = look_up_flaws(found.records, found.predictions)
    missed = [look for look in looks if look.score < found.params.min_score]
    missed.sort(key=lambda look: (look.score, -look.flaw.region.area_px))
    regions = {
        record.name: [one.region for one in predicted]
        for record, predicted in zip(found.records, found.predictions, strict=True)
    }
    return [
        Scene(
            show_scene(look.record, look.flaw.region, regions[look.record.name]),
            f"{Path(look.record.name).name}, {look.flaw.region.area_px:.0f} px",
            look.score,
        )
        for look in missed[:WORST]
    ]
