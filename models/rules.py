"""Defects and a product's rules -> what counts, what is tolerated, what a person must look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from models.findings import Defect
from models.inspection import Measure, Rule
from models.manifest import DetectionParams

Verdict = Literal["ok", "ng"]
Decision = Literal["ok", "review", "ng"]


@dataclass(frozen=True)
class Tolerated:
    """A defect that does not count.

    reason: `rule`, a rule lets it pass; `score`, it lies between the two score limits.
    """

    defect: Defect
    reason: Literal["rule", "score"]


@dataclass(frozen=True)
class Judgement:
    """What counts, strongest first, and what does not.

    decision: `ng` where something counts; `review` where something would, were it certain.
    """

    defects: tuple[Defect, ...]
    tolerated: tuple[Tolerated, ...]
    decision: Decision

    @property
    def verdict(self) -> Verdict:
        """`ng` where something counts."""
        return "ng" if self.defects else "ok"


def judge(found: Sequence[Defect], params: DetectionParams, mm_per_px: float | None) -> Judgement:
    """Hold defects to the two score limits and the rules.

    Rules judge the certain ones alone for what counts, and all together for the decision. With a
    least score of 0 every region was asked for: no rule lets one pass.
    """
    ranked = sorted(found, key=lambda defect: -defect.score)
    certain = [defect for defect in ranked if defect.score >= params.min_score]
    rules = params.rules if params.min_score > 0.0 else ()
    counts = which_count(certain, rules, mm_per_px)
    would_count = which_count(ranked, rules, mm_per_px)
    doubtful = zip(ranked[len(certain) :], would_count[len(certain) :], strict=True)
    return Judgement(
        defects=tuple(d for d, does in zip(certain, counts, strict=True) if does),
        tolerated=(
            *(Tolerated(d, "rule") for d, does in zip(certain, counts, strict=True) if not does),
            *(Tolerated(d, "score" if would else "rule") for d, would in doubtful),
        ),
        decision="ng" if any(counts) else "review" if any(would_count) else "ok",
    )


def which_count(
    found: Sequence[Defect], rules: Sequence[Rule], mm_per_px: float | None
) -> list[bool]:
    """Of each, whether it counts: under no rule, or under one whose number they exceed together.

    Errors: ValueError where a rule needs a scale that is not known.
    """
    fitting = [_rule_of(defect, rules, mm_per_px) for defect in found]
    fallen = Counter(fitting)
    return [index is None or _is_exceeded(rules[index], fallen[index]) for index in fitting]


def _rule_of(defect: Defect, rules: Sequence[Rule], mm_per_px: float | None) -> int | None:
    """Index of the first rule that a defect falls under. A truncated one stays under no limit."""
    for index, rule in enumerate(rules):
        is_named = rule.label in (None, defect.label)
        is_whole = not (rule.under and defect.truncated)
        if (
            is_named
            and is_whole
            and all(_measure(defect, name, mm_per_px) < limit for name, limit in rule.under.items())
        ):
            return index
    return None


def _measure(defect: Defect, name: Measure, mm_per_px: float | None) -> float:
    kind, _, unit = name.rpartition("_")
    if unit == "mm" and mm_per_px is None:
        raise ValueError(f"{name} needs the camera's scale")
    scale = mm_per_px if unit == "mm" and mm_per_px is not None else 1.0
    if kind == "area":
        return defect.region.area_px * scale**2
    return scale * (defect.extent.length_px if kind == "length" else defect.extent.width_px)


def _is_exceeded(rule: Rule, count: int) -> bool:
    return rule.allowed is not None and count > rule.allowed
