"""One draw of one defect: where it goes, how large it is, whether it may stay."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from models.arrays import Mask, Pixels, RgbImage
from models.errors import ParameterInvalid
from models.manifest import LabelShape, SynthesisParams
from models.steps.checks import objection_to
from models.steps.contexts import most_familiar, read_contexts
from models.steps.controls import Labels
from models.steps.copies import read_fingerprints, similarity, take_fingerprint
from models.steps.drafts import Draft
from models.steps.fusion import contrast
from models.steps.outlines import Region, place_region
from models.steps.pictures import Picture
from models.steps.sites import (
    LEAST_SIDE_PX,
    Site,
    cut_site,
    draw_defect_side_px,
    draw_site_center,
    site_side_px,
)

MOST_STRENGTHENED = 2.5
"""How many times a change may be strengthened to be seen; a fainter one is drawn again."""
HALF_A_LEVEL = 0.5
"""How far rounding to whole grey levels may take a contrast from the one that was drawn."""


@dataclass(frozen=True)
class Plan:
    """What all samples of a request share, checked: the picture, and what is asked for.

    `outlines` are the regions of a client's mask, none where masks are imagined; then each sample
    gets `defects`. `shapes` by index of label. `shown_px` is the side of a site as the generators
    see it. Ranges are None where nothing is asked for.
    """

    picture: Picture
    image: RgbImage
    allowed: Mask
    labels: Labels
    shapes: tuple[LabelShape, ...]
    params: SynthesisParams
    shown_px: int
    defects: int
    outlines: tuple[Region, ...] = ()
    size_px: tuple[int, int] | None = None
    contrast: tuple[float, float] | None = None

    def goes_on(self, draft: Draft) -> bool:
        """Whether a draft still lacks a defect, and has a draw left for it."""
        return len(draft.defects) < self.defects and draft.failures < self.params.max_attempts


@dataclass(frozen=True)
class Attempt:
    """One draw of a draft's next defect; `mask` (side_px, side_px) of its site's window.

    `longest_px` is the longest side of the defect that was drawn.
    """

    draft: Draft
    label: int
    site: Site
    longest_px: int = 0
    mask: Mask = field(default_factory=lambda: np.zeros((0, 0), bool))


def draw_attempt(draft: Draft, plan: Plan) -> Attempt:
    """A square around an allowed pixel, as large as defects of the label, or a request, ask for."""
    label = _draw_label(draft, plan)
    defect_px = draw_defect_side_px(plan.shapes[label].sides_px, draft.rng, plan.size_px)
    side_px = min(site_side_px(defect_px, plan.params.crop_scale, draft.rng), *plan.picture.hw)
    longest_px = min(max(1, round(defect_px)), side_px - 2)
    site = _choose_site(_draw_sites(draft, plan, side_px), longest_px, plan.shapes[label])
    return Attempt(draft, label, site, longest_px)


def follow_outline(draft: Draft, plan: Plan) -> Attempt:
    """A square around the next region of a client's mask, and that region exactly as it is.

    Where the picture is too small for the square, its edge is repeated.
    """
    label = _draw_label(draft, plan)
    outline = plan.outlines[len(draft.defects)]
    x, y, width, height = outline.box
    scale = draft.rng.uniform(*plan.params.crop_scale)
    side_px = max(LEAST_SIDE_PX, width, height, round(max(width, height) * scale))
    centre = (x + width / 2, y + height / 2)
    site = cut_site(plan.image, plan.allowed, centre, side_px, plan.shown_px)
    mask = place_region(outline, (site.window.x, site.window.y), (side_px, side_px))
    return Attempt(draft, label, site, mask=mask)


def draw_contrast(attempt: Attempt, plan: Plan) -> float | None:
    """One from the range that was asked for, as far as it is visible."""
    if plan.contrast is None:
        return None
    least, most = plan.contrast
    visible = plan.shapes[attempt.label].min_contrast
    return float(attempt.draft.rng.uniform(max(least, visible), most))


def faint_contrast(
    before: Pixels, after: Pixels, mask: Mask, label: int, plan: Plan
) -> float | None:
    """The contrast to strengthen a change to that is nearly visible; None where it is, or is far.

    A little over the least, for the change is rounded to whole levels.
    """
    least = plan.shapes[label].min_contrast
    is_faint = least / MOST_STRENGTHENED <= contrast(before, after, mask) < least
    return least + HALF_A_LEVEL if is_faint else None


def objection_to_mask(attempt: Attempt, plan: Plan) -> str | None:
    """Why an imagined mask may not stand where it is: see `objection_to`.

    Where a size under the label's real ones is asked for, the least area is as much smaller.
    """
    window, shape = attempt.site.window, plan.shapes[attempt.label]
    share = min(1.0, attempt.longest_px / shape.sides_px[0]) ** 2
    return objection_to(
        attempt.mask,
        allowed=plan.allowed[window.slices_in(plan.picture.hw)],
        taken=attempt.draft.taken_in(window),
        min_area_px=max(1.0, shape.min_area_px * share),
    )


def objection_to_change(
    before: Pixels, after: Pixels, mask: Mask, label: int, plan: Plan
) -> str | None:
    """Why a painted defect may not stay: contrast, invisible, copy; None where it may.

    `copy` is one that is too like a training defect. A client's mask is its client's own shape:
    it is no copy.
    """
    shape, reached = plan.shapes[label], contrast(before, after, mask)
    if plan.contrast is not None and reached < plan.contrast[0] - HALF_A_LEVEL:
        return "contrast"
    if reached < shape.min_contrast:
        return "invisible"
    if shape.fingerprints and not plan.outlines:
        known = read_fingerprints(shape.fingerprints)
        likeness = similarity(take_fingerprint(before, after, mask)[None], known)
        return "copy" if likeness.max() > shape.copy_similarity else None
    return None


def no_place(draft: Draft, plan: Plan) -> ParameterInvalid:
    """What a caller is told of a draft that has no draw left for its next defect."""
    told = ", ".join(f"{count} {reason}" for reason, count in draft.rejected.most_common())
    if plan.outlines:
        box = plan.outlines[len(draft.defects)].box
        return ParameterInvalid("mask", f"the defect at {box} never became visible ({told})")
    most = max(draft.rejected, key=lambda reason: draft.rejected[reason])
    place = "defects" if draft.defects else "region"
    return ParameterInvalid(
        most if most == "contrast" else place,
        f"no legal and visible defect found a place in {draft.failures} draws ({told})",
    )


def _draw_sites(draft: Draft, plan: Plan, side_px: int) -> list[Site]:
    """A few squares around allowed pixels."""
    centres = [
        draw_site_center(plan.allowed, draft.rng) for _ in range(plan.params.site_candidates)
    ]
    return [cut_site(plan.image, plan.allowed, c, side_px, plan.shown_px) for c in centres]


def _choose_site(sites: list[Site], longest_px: int, shape: LabelShape) -> Site:
    """Of those with room for the defect the one most like where real defects lie."""
    roomy = [site for site in sites if site.has_room(longest_px)] or sites
    contexts = read_contexts(shape.contexts)
    if len(roomy) == 1 or not len(contexts):
        return roomy[0]
    return roomy[most_familiar([site.image for site in roomy], contexts)]


def _draw_label(draft: Draft, plan: Plan) -> int:
    """Drawn anew for each attempt; by shares once for each defect, or the easy ones gained."""
    if draft.label is None or plan.labels.odds is None:
        draft.label = plan.labels.draw(draft.rng)
    return draft.label
