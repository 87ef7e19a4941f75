"""STORY 2: normal picture -> site -> mask -> foreground -> fusion -> checks.

Source: patent "A defect image generation method", claims 1 to 3: one generator imagines masks from
the picture and Gaussian noise, one paints the defect that a mask asks for.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.arrays import Mask, Pixels, RgbImage, Scores
from models.errors import ParameterInvalid
from models.graphs import DefectGenerator, MaskGenerator
from models.manifest import LabelShape, Limits, SynthesisParams
from models.steps.checks import largest_part, objection_to, require_client_mask
from models.steps.crops import resize_crop
from models.steps.fusion import Foreground, contrast, feather, fuse
from models.steps.objects import find_object
from models.steps.outlines import Region, bridge_diagonals, find_regions
from models.steps.pictures import Picture, require_size
from models.steps.sites import (
    LEAST_SIDE_PX,
    Site,
    allow_box,
    as_bytes,
    cut_site,
    draw_site_center,
    draw_site_side_px,
    enlarge,
)


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
    """What is asked for; `region` is x, y, width, height, `mask` a client's own mask."""

    seed: int
    count: int = 1
    defects: int = 1
    label: str | None = None
    region: tuple[int, int, int, int] | None = None
    mask: Mask | None = None


@dataclass(frozen=True)
class SyntheticDefect:
    """One painted defect."""

    label: str
    region: Region


@dataclass(frozen=True)
class Synthetic:
    """One sample: the picture at the input's depth and channels, and its exact mask."""

    seed: int
    pixels: Pixels
    mask: Mask
    defects: tuple[SyntheticDefect, ...]
    rejected: Counter[str]
    timings_ms: dict[str, float]


@dataclass
class Draft:
    """A sample while it is being made."""

    image: RgbImage
    pixels: Pixels
    mask: Mask
    allowed: Mask
    rng: np.random.Generator
    defects: list[SyntheticDefect] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    timings_ms: dict[str, float] = field(default_factory=lambda: {"mask": 0.0, "defect": 0.0})


def synthesize(
    picture: Picture, request: SynthesisRequest, synthesizer: Synthesizer
) -> Iterator[Synthetic]:
    """Put new defects on a normal picture, one sample after the other.

    Sample i is drawn from seed + i alone, so it is the same however many are asked for.

    Errors: PictureTooSmall, PictureTooLarge, MaskMismatch, ParameterInvalid at the call;
            ParameterInvalid also while iterating, where no draw passes the checks.
    """
    require_size(picture.hw, **synthesizer.limits.model_dump())
    _require_counts(request)
    label = _label_index(request.label, synthesizer.labels)
    mask = request.mask
    if mask is not None:
        _require_no_place(request)
        require_client_mask(mask, picture.hw)
        return _each(
            picture, request, lambda d: paint_client_mask(d, mask, label, synthesizer), mask
        )
    allowed = find_allowed(picture.as_rgb8(), request.region, synthesizer.params)
    if not allowed.any():
        raise ParameterInvalid("region", "holds no pixel of the object")

    def make(draft: Draft) -> None:
        for _ in range(request.defects):
            add_defect(draft, label, synthesizer)

    return _each(picture, request, make, allowed)


def find_allowed(
    image: RgbImage, region: tuple[int, int, int, int] | None, params: SynthesisParams
) -> Mask:
    """Where defects may lie: the region that was asked for, else the object as found."""
    if region is not None:
        return allow_box(region, (image.shape[0], image.shape[1]))
    return find_object(image, **params.object_rule.model_dump())


def add_defect(draft: Draft, label: int | None, synthesizer: Synthesizer) -> None:
    """Draw sites, masks and foregrounds until one passes every check, then fuse it in."""
    for _ in range(synthesizer.params.max_attempts):
        chosen = _choose_label(label, draft, synthesizer)
        shape = synthesizer.params.shapes[synthesizer.labels[chosen]]
        site = draw_site(draft, shape, synthesizer)
        mask = imagine_mask(draft, site, chosen, synthesizer)
        rows, columns = site.window.slices_in(draft.mask.shape)
        reason = objection_to(
            mask,
            allowed=draft.allowed[rows, columns],
            taken=draft.mask[rows, columns],
            min_area_px=shape.min_area_px,
        ) or paint_defect(draft, site, mask, chosen, synthesizer)
        if reason is None:
            return
        draft.rejected[reason] += 1
    raise ParameterInvalid(
        "defects" if draft.defects else "region",
        f"no legal and visible defect found a place in {synthesizer.params.max_attempts} draws "
        f"({', '.join(f'{count} {reason}' for reason, count in draft.rejected.items())})",
    )


def draw_site(draft: Draft, shape: LabelShape, synthesizer: Synthesizer) -> Site:
    """A square around an allowed pixel, as large as real defects of the label ask for."""
    side_px = draw_site_side_px(shape.sides_px, synthesizer.params.crop_scale, draft.rng)
    centre = draw_site_center(draft.allowed, draft.rng)
    side_px = min(side_px, *draft.mask.shape)
    return cut_site(draft.image, draft.allowed, centre, side_px, synthesizer.mask_generator.side_px)


def imagine_mask(draft: Draft, site: Site, label: int, synthesizer: Synthesizer) -> Mask:
    """Stage 1 at a site: noise -> soft mask -> the window's own pixels, True on the defect."""
    generator, rng = synthesizer.mask_generator, draft.rng
    started = time.perf_counter()
    (soft,) = generator.graph(
        **site.conditions(label),
        object=as_bytes(site.object)[None],
        noise=rng.standard_normal((1, generator.noise_size), np.float32),
        spatial_noise=rng.standard_normal((1, *generator.spatial_noise_chw), np.float32),
    )
    draft.timings_ms["mask"] += 1e3 * (time.perf_counter() - started)
    full = enlarge(soft[0, 0], site.window.side_px)
    return largest_part(bridge_diagonals(full >= synthesizer.params.mask_threshold))


def paint_client_mask(
    draft: Draft, mask: Mask, label: int | None, synthesizer: Synthesizer
) -> None:
    """Paint a client's mask: each of its regions, one after the other, exactly as it is."""
    for region in find_regions(mask):
        chosen = _choose_label(label, draft, synthesizer)
        for _ in range(synthesizer.params.max_attempts):
            site = _site_of(region, draft, synthesizer)
            inside = np.zeros((site.window.side_px,) * 2, bool)
            y, x = region.y - site.window.y, region.x - site.window.x
            inside[y : y + region.box[3], x : x + region.box[2]] = region.mask
            reason = paint_defect(draft, site, inside, chosen, synthesizer)
            if reason is None:
                break
            draft.rejected[reason] += 1
        else:
            raise ParameterInvalid("mask", f"the defect at {region.box} never became visible")


def paint_defect(
    draft: Draft, site: Site, mask: Mask, label: int, synthesizer: Synthesizer
) -> str | None:
    """Stage 2 at a site: foreground -> fusion, kept where it is visible; else the reason."""
    params, window = synthesizer.params, site.window
    foreground, alpha = paint_foreground(draft, site, mask, label, synthesizer)
    width_px = params.feather_px * window.side_px / synthesizer.defect_generator.side_px
    alpha *= feather(mask, width_px)
    rows, columns = window.slices_in(draft.mask.shape)
    before = draft.pixels[rows, columns]
    foreground, alpha, mask = (_inside(part, before) for part in (foreground, alpha, mask))
    after = fuse(before, foreground, alpha, mask)
    if contrast(before, after, mask) < params.shapes[synthesizer.labels[label]].min_contrast:
        return "invisible"
    draft.pixels[rows, columns] = after
    draft.mask[rows, columns] |= mask
    (region,) = find_regions(mask, offset_xy=(window.x, window.y))
    draft.defects.append(SyntheticDefect(synthesizer.labels[label], region))
    return None


def paint_foreground(
    draft: Draft, site: Site, mask: Mask, label: int, synthesizer: Synthesizer
) -> tuple[Foreground, Scores]:
    """What stage 2 answers, at the window's own side: (side, side, 3) and (side, side)."""
    generator, side_px = synthesizer.defect_generator, site.window.side_px
    started = time.perf_counter()
    foreground, alpha = generator.graph(
        **site.conditions(label),
        mask=resize_crop(as_bytes(mask), generator.side_px)[None],
        noise=draft.rng.standard_normal((1, generator.noise_size), np.float32),
    )
    draft.timings_ms["defect"] += 1e3 * (time.perf_counter() - started)
    painted = np.ascontiguousarray(foreground[0].transpose(1, 2, 0))
    return enlarge(painted, side_px), enlarge(alpha[0, 0], side_px)


def _require_counts(request: SynthesisRequest) -> None:
    for name, least in (("seed", 0), ("count", 1), ("defects", 1)):
        if getattr(request, name) < least:
            raise ParameterInvalid(name, f"must be at least {least}")


def _each(
    picture: Picture, request: SynthesisRequest, make: Callable[[Draft], object], allowed: Mask
) -> Iterator[Synthetic]:
    for seed in range(request.seed, request.seed + request.count):
        draft = Draft(
            image=picture.as_rgb8(),
            pixels=picture.pixels.copy(),
            mask=np.zeros(picture.hw, bool),
            allowed=allowed,
            rng=np.random.default_rng(seed),
        )
        make(draft)
        yield Synthetic(
            seed=seed,
            pixels=draft.pixels,
            mask=draft.mask,
            defects=tuple(draft.defects),
            rejected=draft.rejected,
            timings_ms=dict(draft.timings_ms),
        )


def _require_no_place(request: SynthesisRequest) -> None:
    """A client's mask already says where, and how many."""
    if request.region is not None:
        raise ParameterInvalid("region", "has no use beside a mask")
    if request.defects != 1:
        raise ParameterInvalid("defects", "has no use beside a mask")


def _site_of(region: Region, draft: Draft, synthesizer: Synthesizer) -> Site:
    """A square around a client's region; where the picture is too small, its edge is repeated."""
    scale = draft.rng.uniform(*synthesizer.params.crop_scale)
    x, y, width, height = region.box
    side_px = max(LEAST_SIDE_PX, width, height, round(max(width, height) * scale))
    centre = (x + width / 2, y + height / 2)
    return cut_site(
        draft.image, draft.allowed, centre, side_px, synthesizer.defect_generator.side_px
    )


def _inside(part: NDArray[Any], picture: Pixels) -> NDArray[Any]:
    """What of a window lies in the picture: a window reaches out beyond the far edges only."""
    return part[: picture.shape[0], : picture.shape[1]]


def _choose_label(label: int | None, draft: Draft, synthesizer: Synthesizer) -> int:
    return int(draft.rng.integers(len(synthesizer.labels))) if label is None else label


def _label_index(label: str | None, labels: tuple[str, ...]) -> int | None:
    if label is not None and label not in labels:
        raise ParameterInvalid("label", f"is none of {', '.join(labels)}")
    return None if label is None else labels.index(label)
