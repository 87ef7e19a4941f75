"""STORY 2: normal picture -> site -> mask -> foreground -> fusion -> checks.

Source: patent "A defect image generation method", claims 1 to 3: one generator imagines masks from
the picture and Gaussian noise, one paints the defect that a mask asks for.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.arrays import Mask, Pixels, RgbImage, Scores
from models.attempts import (
    Attempt,
    Plan,
    draw_attempt,
    draw_contrast,
    faint_contrast,
    follow_outline,
    no_place,
    objection_to_change,
    objection_to_mask,
)
from models.errors import ParameterInvalid
from models.graphs import DefectGenerator, GraphCall, MaskGenerator
from models.manifest import Limits, SynthesisParams
from models.steps.checks import require_client_mask
from models.steps.controls import choose_labels, require_contrasts, require_sizes
from models.steps.crops import cut_crop, resize_crop
from models.steps.drafts import Draft, SyntheticDefect
from models.steps.fusion import Foreground, carry_grain, feather, fuse
from models.steps.masks import harden_mask
from models.steps.objects import find_object
from models.steps.outlines import find_regions
from models.steps.pictures import Picture, require_size
from models.steps.sites import allow_box, as_bytes, conditions_of, enlarge

BATCH = 4
"""Samples that are made side by side, stage by stage: few, for their squares are in memory."""


@dataclass(frozen=True)
class Synthesizer:
    """Everything story 2 is told with."""

    mask_generator: MaskGenerator
    defect_generator: DefectGenerator
    labels: tuple[str, ...]
    params: SynthesisParams
    limits: Limits


@dataclass(frozen=True)
class SynthesisRequest:
    """What is asked for; `region` is x, y, width, height, `mask` a client's own mask.

    `labels` are shares by which labels are drawn. Ranges are least and most, both included:
    `size_px` of the longest side of a defect's box, `contrast` of its mean change in grey levels.
    """

    seed: int
    count: int = 1
    defects: int = 1
    label: str | None = None
    labels: Mapping[str, float] | None = None
    region: tuple[int, int, int, int] | None = None
    size_px: tuple[int, int] | None = None
    contrast: tuple[float, float] | None = None
    mask: Mask | None = None


@dataclass(frozen=True)
class Synthetic:
    """One sample: the picture at the input's depth and channels, and its exact mask."""

    seed: int
    pixels: Pixels
    mask: Mask
    defects: tuple[SyntheticDefect, ...]
    rejected: Counter[str]
    timings_ms: dict[str, float]


def synthesize(
    picture: Picture, request: SynthesisRequest, synthesizer: Synthesizer
) -> Iterator[Synthetic]:
    """Put new defects on a normal picture: samples one after the other, made BATCH at a time.

    Sample i is drawn from seed + i alone, so it is the same however many are asked for.

    Errors: PictureTooSmall, PictureTooLarge, MaskMismatch, ParameterInvalid at the call;
            ParameterInvalid also while iterating, where no draw passes the checks.
    """
    require_size(picture.hw, **synthesizer.limits.model_dump())
    plan = plan_samples(picture, request, synthesizer)
    return make_samples(range(request.seed, request.seed + request.count), plan, synthesizer)


def plan_samples(picture: Picture, request: SynthesisRequest, synthesizer: Synthesizer) -> Plan:
    """Check what is asked for, and find where it may go. Errors: MaskMismatch, ParameterInvalid."""
    _require_numbers(request)
    labels = choose_labels(synthesizer.labels, request.label, request.labels)
    image, mask = picture.as_rgb8(), request.mask
    if mask is None:
        if request.size_px is not None:
            require_sizes(request.size_px, picture.hw, request.region)
        allowed = find_allowed(image, request.region, synthesizer.params)
        if not allowed.any():
            raise ParameterInvalid("region", "holds no pixel of the object")
    else:
        _require_no_place(request)
        require_client_mask(mask, picture.hw)
    shapes = {label: synthesizer.params.shapes[label] for label in synthesizer.labels}
    if request.contrast is not None:
        drawn = [synthesizer.labels[k] for k in labels.indices]
        require_contrasts(request.contrast, {name: shapes[name].min_contrast for name in drawn})
    outlines = () if mask is None else tuple(find_regions(mask))
    return Plan(
        picture=picture,
        image=image,
        allowed=allowed if mask is None else mask,
        labels=labels,
        shapes=tuple(shapes.values()),
        params=synthesizer.params,
        shown_px=synthesizer.defect_generator.side_px,
        defects=len(outlines) or request.defects,
        outlines=outlines,
        size_px=request.size_px,
        contrast=request.contrast,
    )


def find_allowed(
    image: RgbImage, region: tuple[int, int, int, int] | None, params: SynthesisParams
) -> Mask:
    """Where defects may lie: the region that was asked for, else the object as found."""
    if region is not None:
        return allow_box(region, (image.shape[0], image.shape[1]))
    return find_object(image, **params.object_rule.model_dump())


def make_samples(seeds: range, plan: Plan, synthesizer: Synthesizer) -> Iterator[Synthetic]:
    """A sample for each seed, in order; of those not taken yet only the drafts are in memory."""
    for start in range(0, len(seeds), BATCH):
        drafts = [Draft(s, np.random.default_rng(s)) for s in seeds[start : start + BATCH]]
        make_defects(drafts, plan, synthesizer)
        for draft in drafts:
            yield finish_sample(draft, plan)


def make_defects(drafts: list[Draft], plan: Plan, synthesizer: Synthesizer) -> None:
    """Draw for all drafts side by side until each has its defects, or no draw left for the next.

    Whatever company a draft is in, it draws from its own numbers, in the same order.
    """
    while going := [draft for draft in drafts if plan.goes_on(draft)]:
        if plan.outlines:
            attempts = [follow_outline(draft, plan) for draft in going]
        else:
            attempts = [draw_attempt(draft, plan) for draft in going]
            attempts = imagine_masks(attempts, plan, synthesizer.mask_generator)
        if attempts:
            paint_defects(attempts, plan, synthesizer)


def imagine_masks(attempts: list[Attempt], plan: Plan, generator: MaskGenerator) -> list[Attempt]:
    """Stage 1 for all: noise -> soft masks -> the attempts whose mask may stand there."""
    noise = [_gauss(attempt, generator.noise_size) for attempt in attempts]
    spatial_noise = [_gauss(attempt, *generator.spatial_noise_chw) for attempt in attempts]
    (soft,) = _run(
        "mask",
        generator.graph,
        attempts,
        object=np.stack([as_bytes(attempt.site.object) for attempt in attempts]),
        noise=np.stack(noise),
        spatial_noise=np.stack(spatial_noise),
    )
    imagined = []
    for attempt, (of_one,) in zip(attempts, soft, strict=True):
        side_px, threshold = attempt.site.window.side_px, plan.params.mask_threshold
        mask = harden_mask(of_one, side_px, threshold=threshold, longest_px=attempt.longest_px)
        attempt = replace(attempt, mask=mask)
        objection = objection_to_mask(attempt, plan)
        if objection is None:
            imagined.append(attempt)
        else:
            attempt.draft.reject(objection)
    return imagined


def paint_defects(attempts: list[Attempt], plan: Plan, synthesizer: Synthesizer) -> None:
    """Stage 2 for all: masks -> foregrounds -> fusion, kept where nothing objects to it."""
    generator = synthesizer.defect_generator
    masks = [resize_crop(as_bytes(attempt.mask), generator.side_px) for attempt in attempts]
    noise = [_gauss(attempt, generator.noise_size) for attempt in attempts]
    painted = _run("defect", generator.graph, attempts, mask=np.stack(masks), noise=np.stack(noise))
    for attempt, foreground, (alpha,) in zip(attempts, *painted, strict=True):
        before, after, mask = fuse_attempt(attempt, foreground.transpose(1, 2, 0), alpha, plan)
        objection = objection_to_change(before, after, mask, attempt.label, plan)
        if objection is None:
            window = attempt.site.window
            (region,) = find_regions(mask, offset_xy=(window.x, window.y))
            defect = SyntheticDefect(synthesizer.labels[attempt.label], region)
            attempt.draft.accept(defect, after[mask])
        else:
            attempt.draft.reject(objection)


def fuse_attempt(
    attempt: Attempt, foreground: Foreground, alpha: Scores, plan: Plan
) -> tuple[Pixels, Pixels, Mask]:
    """The site's pixels before and after, and the mask, cut to what lies in the picture.

    What stage 2 answered is put over the picture at the window's own side, with the picture's own
    grain where the window is larger than what it was shown. Where nobody asks for a
    contrast, a change a little too faint to be seen is strengthened until it is.
    """
    window = attempt.site.window
    before = plan.picture.pixels[window.slices_in(plan.picture.hw)]
    opacity = enlarge(alpha, window.side_px)
    opacity *= feather(attempt.mask, plan.params.feather_px * window.side_px / alpha.shape[0])
    painted = enlarge(np.ascontiguousarray(foreground), window.side_px)
    square = cut_crop(plan.image, window)
    painted = carry_grain(painted, square, attempt.site.image, attempt.mask)
    inside = np.s_[: before.shape[0], : before.shape[1]]
    mask = attempt.mask[inside]
    asked = draw_contrast(attempt, plan)
    after = fuse(before, painted[inside], opacity[inside], mask, asked_contrast=asked)
    if asked is None and (least := faint_contrast(before, after, mask, attempt.label, plan)):
        after = fuse(before, painted[inside], opacity[inside], mask, asked_contrast=least)
    return before, after, mask


def finish_sample(draft: Draft, plan: Plan) -> Synthetic:
    """The draft's defects in a picture of their own. Errors: ParameterInvalid where they lack."""
    if len(draft.defects) < plan.defects:
        raise no_place(draft, plan)
    pixels, mask = draft.fuse_into(plan.picture.pixels)
    return Synthetic(
        draft.seed, pixels, mask, tuple(draft.defects), draft.rejected, draft.timings_ms
    )


def _require_numbers(request: SynthesisRequest) -> None:
    for name, least in (("seed", 0), ("count", 1), ("defects", 1)):
        if getattr(request, name) < least:
            raise ParameterInvalid(name, f"must be at least {least}")


def _require_no_place(request: SynthesisRequest) -> None:
    """A client's mask already says where, how large and how many."""
    for name, untouched in (("region", None), ("size_px", None), ("defects", 1)):
        if getattr(request, name) != untouched:
            raise ParameterInvalid(name, "has no use beside a mask")


def _run(
    stage: str, graph: GraphCall, attempts: list[Attempt], **arrays: NDArray[Any]
) -> tuple[NDArray[np.float32], ...]:
    """A graph's answers for all attempts; each draft is told its share of the time.

    One by one: a matrix product rounds otherwise in a batch of another size, and a mask's pixel
    on the threshold may turn over. Two CPU cores take as long either way.
    """
    sites, labels = [a.site for a in attempts], [a.label for a in attempts]
    given = {**conditions_of(sites, labels), **arrays}
    started = time.perf_counter()
    rows = [
        graph(**{name: array[i : i + 1] for name, array in given.items()})
        for i in range(len(attempts))
    ]
    each_ms = 1e3 * (time.perf_counter() - started) / len(attempts)
    for attempt in attempts:
        attempt.draft.timings_ms[stage] += each_ms
    return tuple(np.concatenate(outputs) for outputs in zip(*rows, strict=True))


def _gauss(attempt: Attempt, *shape: int) -> NDArray[np.float32]:
    """Noise from the draft's own numbers."""
    return attempt.draft.rng.standard_normal(shape, np.float32)
