from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import Any

import cv2
import numpy as np
import pytest

from models.arrays import Mask, Pixels
from models.attempts import Plan
from models.bundle import SHIPPED, Bundle, find_bundle, open_bundle
from models.devices import Device
from models.errors import MaskMismatch, ParameterInvalid, PictureTooLarge, PictureTooSmall
from models.steps.copies import similarity, take_fingerprint, write_fingerprints
from models.steps.drafts import Draft
from models.steps.fusion import contrast
from models.steps.outlines import fill_polygon
from models.steps.pictures import Picture
from models.synthesis import (
    BATCH,
    SynthesisRequest,
    Synthesizer,
    Synthetic,
    find_allowed,
    make_defects,
    plan_samples,
    synthesize,
)

KINDS = [("uint8", ()), ("uint8", (3,)), ("uint16", ()), ("uint16", (3,))]
PLATE = np.s_[12:148, 20:220]


@pytest.fixture
def synthesizer(tiny: Bundle) -> Synthesizer:
    return tiny.synthesizer


def plate(dtype: str = "uint8", channels: tuple[int, ...] = (3,)) -> Picture:
    """A bright, noisy plate on a dark ground, 160 high and 240 wide."""
    rng = np.random.default_rng(1)
    grey = rng.uniform(0, 0.08, (160, 240, *channels))
    grey[PLATE] = rng.uniform(0.6, 0.9, grey[PLATE].shape)
    return Picture((grey * np.iinfo(dtype).max).astype(dtype))


def on_plate(hw: tuple[int, int] = (160, 240)) -> Mask:
    mask = np.zeros(hw, bool)
    mask[PLATE] = True
    return mask


def box_mask(*boxes: tuple[int, int, int, int], hw: tuple[int, int] = (160, 240)) -> Mask:
    mask = np.zeros(hw, bool)
    for x, y, width, height in boxes:
        mask[y : y + height, x : x + width] = True
    return mask


def one(picture: Picture, request: SynthesisRequest, synthesizer: Synthesizer) -> Synthetic:
    (sample,) = synthesize(picture, request, synthesizer)
    return sample


def require_identity_outside(sample: Synthetic, before: Pixels) -> None:
    assert sample.pixels.dtype == before.dtype
    assert sample.pixels.shape == before.shape
    np.testing.assert_array_equal(sample.pixels[~sample.mask], before[~sample.mask])


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_every_pixel_outside_the_mask_is_the_pictures_bit_for_bit(
    synthesizer: Synthesizer, dtype: str, channels: tuple[int, ...]
) -> None:
    picture = plate(dtype, channels)

    for sample in synthesize(picture, SynthesisRequest(seed=3, count=4, defects=3), synthesizer):
        require_identity_outside(sample, picture.pixels)
        assert (sample.pixels[sample.mask] != picture.pixels[sample.mask]).any()


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_the_normal_picture_itself_is_left_alone(
    synthesizer: Synthesizer, dtype: str, channels: tuple[int, ...]
) -> None:
    picture = plate(dtype, channels)

    one(picture, SynthesisRequest(seed=3), synthesizer)

    np.testing.assert_array_equal(picture.pixels, plate(dtype, channels).pixels)


def test_every_mask_is_non_empty_inside_the_object_and_of_the_pictures_size(
    synthesizer: Synthesizer,
) -> None:
    picture = plate()
    found = find_allowed(picture.as_rgb8(), None, synthesizer.params)

    for sample in synthesize(picture, SynthesisRequest(seed=0, count=12), synthesizer):
        assert sample.mask.shape == picture.hw
        assert sample.mask.dtype == np.bool_
        assert sample.mask.sum() >= synthesizer.params.shapes["pit"].min_area_px
        assert not (sample.mask & ~found).any()


def test_every_defect_is_visible(synthesizer: Synthesizer) -> None:
    picture = plate()

    for sample in synthesize(picture, SynthesisRequest(seed=0, count=8, defects=2), synthesizer):
        for defect in sample.defects:
            mask = fill_polygon(defect.region.polygon, picture.hw)
            least = synthesizer.params.shapes[defect.label].min_contrast
            assert contrast(picture.pixels, sample.pixels, mask) >= least


@pytest.mark.parametrize("defects", [1, 2, 7, 16])
def test_as_many_defects_as_asked_for_and_none_touches_another(
    synthesizer: Synthesizer, defects: int
) -> None:
    pixels = np.random.default_rng(0).integers(150, 250, (400, 400, 3), np.uint8)

    sample = one(Picture(pixels), SynthesisRequest(seed=5, defects=defects), synthesizer)

    assert len(sample.defects) == defects
    parts = cv2.connectedComponents(sample.mask.view(np.uint8), connectivity=8)[0] - 1
    assert parts == defects


def test_the_outlines_filled_again_are_the_mask(synthesizer: Synthesizer) -> None:
    sample = one(plate(), SynthesisRequest(seed=2, defects=4), synthesizer)

    filled = [fill_polygon(defect.region.polygon, (160, 240)) for defect in sample.defects]
    np.testing.assert_array_equal(np.logical_or.reduce(filled), sample.mask)


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others(
    synthesizer: Synthesizer,
) -> None:
    first, again, other = (
        one(plate(), SynthesisRequest(seed=seed, defects=2), synthesizer) for seed in (7, 7, 8)
    )

    np.testing.assert_array_equal(first.pixels, again.pixels)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert [d.label for d in first.defects] == [d.label for d in again.defects]
    assert (first.mask != other.mask).any()


def test_sample_i_of_a_seed_is_the_first_of_that_seed_plus_i(synthesizer: Synthesizer) -> None:
    samples = list(synthesize(plate(), SynthesisRequest(seed=40, count=3), synthesizer))

    assert [sample.seed for sample in samples] == [40, 41, 42]
    for sample in samples:
        alone = one(plate(), SynthesisRequest(seed=sample.seed), synthesizer)
        np.testing.assert_array_equal(sample.pixels, alone.pixels)
        np.testing.assert_array_equal(sample.mask, alone.mask)


def test_a_clients_mask_is_drawn_from_its_seed_too(synthesizer: Synthesizer) -> None:
    mask = box_mask((50, 50, 12, 9), (120, 80, 20, 4))

    samples = list(synthesize(plate(), SynthesisRequest(4, count=2, mask=mask), synthesizer))
    alone = one(plate(), SynthesisRequest(5, mask=mask), synthesizer)

    np.testing.assert_array_equal(samples[1].pixels, alone.pixels)


def test_one_normal_picture_gets_many_different_masks(synthesizer: Synthesizer) -> None:
    samples = list(synthesize(plate(), SynthesisRequest(seed=0, count=10), synthesizer))

    assert len({sample.mask.tobytes() for sample in samples}) == 10
    assert len({sample.defects[0].region.area_px for sample in samples}) > 3


def test_a_sample_is_the_same_in_any_batch(synthesizer: Synthesizer) -> None:
    wishes = {"size_px": (9, 40), "contrast": (5.0, 60.0), "labels": {"pit": 1.0, "scratch": 3.0}}
    request = SynthesisRequest(seed=0, count=2 * BATCH + 1, defects=2, **wishes)  # type: ignore[arg-type]

    samples = list(synthesize(plate(), request, synthesizer))

    assert any(sample.rejected for sample in samples)
    for sample in samples:
        alone = one(plate(), replace(request, seed=sample.seed, count=1), synthesizer)
        np.testing.assert_array_equal(sample.pixels, alone.pixels)
        np.testing.assert_array_equal(sample.mask, alone.mask)
        assert sample.rejected == alone.rejected


@pytest.mark.parametrize("product", ["ball-screw", "brushed-plate"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_sample_of_a_shipped_bundle_is_the_same_bits_in_any_company(
    product: str, threads: int
) -> None:
    shipped = open_bundle(find_bundle(SHIPPED, product), Device("cpu", threads)).synthesizer
    pixels = np.random.default_rng(0).integers(60, 200, (300, 400, 3), np.uint8)
    request = SynthesisRequest(seed=0, region=(0, 0, 400, 300))
    plan = plan_samples(Picture(pixels), request, shipped)

    alone, together = (drafts_of(8, plan, shipped, size) for size in (1, 8))
    odd = drafts_of(8, plan, shipped, 3)

    for first, second, third in zip(alone, together, odd, strict=True):
        for other in (second, third):
            assert first.rejected == other.rejected
            assert [d.region.box for d in first.defects] == [d.region.box for d in other.defects]
            for one_paint, other_paint in zip(first.painted, other.painted, strict=True):
                np.testing.assert_array_equal(one_paint, other_paint)


def drafts_of(count: int, plan: Plan, synthesizer: Synthesizer, batch: int) -> list[Draft]:
    drafts = [Draft(seed, np.random.default_rng(seed)) for seed in range(count)]
    for start in range(0, count, batch):
        make_defects(drafts[start : start + batch], plan, synthesizer)
    return drafts


def test_samples_are_made_batch_by_batch_as_they_are_taken(synthesizer: Synthesizer) -> None:
    endless = synthesize(plate(), SynthesisRequest(seed=0, count=10**12), synthesizer)

    assert [sample.seed for sample in islice(endless, 2)] == [0, 1]


def test_a_region_keeps_the_defects_inside_whatever_the_object_is(
    synthesizer: Synthesizer,
) -> None:
    box = (180, 100, 60, 60)
    request = SynthesisRequest(seed=0, count=8, region=box)

    masks = [sample.mask for sample in synthesize(plate(), request, synthesizer)]

    assert not np.logical_or.reduce([mask & ~box_mask(box) for mask in masks]).any()
    assert np.logical_or.reduce([mask & ~on_plate() for mask in masks]).any()


def test_a_label_is_kept_and_without_one_each_comes(synthesizer: Synthesizer) -> None:
    asked = synthesize(plate(), SynthesisRequest(0, count=6, label="scratch"), synthesizer)
    free = synthesize(plate(), SynthesisRequest(0, count=12), synthesizer)

    assert {defect.label for sample in asked for defect in sample.defects} == {"scratch"}
    assert {defect.label for sample in free for defect in sample.defects} == {"pit", "scratch"}


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
@pytest.mark.parametrize(
    "mask",
    [
        box_mask((100, 60, 11, 7)),
        box_mask((0, 0, 15, 4), (236, 150, 4, 10)),
        box_mask((0, 0, 240, 160)),
        box_mask((0, 70, 240, 5)),
        box_mask((30, 20, 130, 120)),
        box_mask((100, 60, 20, 20)) & ~box_mask((105, 65, 6, 6)),
        box_mask((100, 60, 1, 1)),
        box_mask((100, 60, 5, 5), (105, 65, 5, 5)),
    ],
    ids=["within", "borders", "all", "across", "large", "ring", "pixel", "corner_to_corner"],
)
def test_a_clients_mask_is_kept_exactly(
    synthesizer: Synthesizer, mask: Mask, dtype: str, channels: tuple[int, ...]
) -> None:
    pixels = np.random.default_rng(0).integers(150, 250, (160, 240, *channels)).astype(dtype)
    picture = Picture(pixels * pixels.dtype.type(np.iinfo(dtype).max // 255))

    sample = one(picture, SynthesisRequest(seed=0, mask=mask), synthesizer)

    np.testing.assert_array_equal(sample.mask, mask)
    require_identity_outside(sample, picture.pixels)
    assert (sample.pixels[mask] != picture.pixels[mask]).all()
    assert sum(defect.region.area_px for defect in sample.defects) == mask.sum()


def test_for_a_clients_mask_only_the_second_network_runs(synthesizer: Synthesizer) -> None:
    imagined = one(plate(), SynthesisRequest(0), synthesizer)
    given = one(plate(), SynthesisRequest(0, mask=box_mask((100, 60, 9, 9))), synthesizer)

    assert imagined.timings_ms["mask"] > 0
    assert given.timings_ms["mask"] == 0
    assert given.timings_ms["defect"] > 0


def test_a_clients_mask_has_a_defect_for_each_region_and_its_label(
    synthesizer: Synthesizer,
) -> None:
    boxes = [(40, 30, 9, 9), (100, 60, 5, 12), (150, 100, 20, 3)]
    request = SynthesisRequest(0, label="scratch", mask=box_mask(*boxes))

    sample = one(plate(), request, synthesizer)

    assert [defect.region.box for defect in sample.defects] == boxes
    assert {defect.label for defect in sample.defects} == {"scratch"}


def test_what_is_invisible_is_drawn_again_and_counted(synthesizer: Synthesizer) -> None:
    pixels = np.zeros((160, 240, 3), np.uint8)
    pixels[:, 120:] = 200
    request = SynthesisRequest(seed=0, count=10, region=(0, 0, 240, 160))

    samples = list(synthesize(Picture(pixels), request, synthesizer))

    rejected = sum((sample.rejected for sample in samples), Counter())
    assert rejected["invisible"] > 0
    assert all((sample.mask[:, 120:]).any() for sample in samples)
    assert any(not sample.rejected for sample in samples)


def test_where_no_defect_is_ever_visible_the_sample_is_refused(synthesizer: Synthesizer) -> None:
    black = Picture(np.zeros((160, 240, 3), np.uint8))

    samples = synthesize(black, SynthesisRequest(seed=0), synthesizer)

    with pytest.raises(ParameterInvalid, match=r"in 20 draws .*invisible"):
        next(samples)


def test_a_clients_mask_that_never_becomes_visible_is_refused(synthesizer: Synthesizer) -> None:
    black = Picture(np.zeros((160, 240, 3), np.uint8))

    samples = synthesize(black, SynthesisRequest(0, mask=box_mask((9, 9, 9, 9))), synthesizer)

    with pytest.raises(ParameterInvalid, match="never became visible") as refusal:
        next(samples)
    assert refusal.value.field == "mask"


def test_more_defects_than_there_is_room_for_are_refused(synthesizer: Synthesizer) -> None:
    request = SynthesisRequest(0, defects=16, region=(60, 60, 30, 30))

    with pytest.raises(ParameterInvalid, match="overlap") as refusal:
        one(plate(), request, synthesizer)

    assert refusal.value.field == "defects"


@pytest.mark.parametrize("hw", [(16, 16), (17, 300)])
def test_the_smallest_pictures_get_their_defect_too(
    synthesizer: Synthesizer, hw: tuple[int, int]
) -> None:
    picture = Picture(np.full((*hw, 3), 200, np.uint8))

    sample = one(picture, SynthesisRequest(seed=0), synthesizer)

    assert sample.mask.any()
    require_identity_outside(sample, picture.pixels)


@pytest.mark.parametrize("size_px", [(3, 3), (10, 12), (30, 60), (120, 158)])
def test_a_defects_longest_side_is_exactly_in_the_range(
    synthesizer: Synthesizer, size_px: tuple[int, int]
) -> None:
    picture = Picture(np.random.default_rng(0).integers(150, 250, (160, 240, 3), np.uint8))
    request = SynthesisRequest(0, count=6, size_px=size_px)

    sides = [
        max(sample.defects[0].region.box[2:])
        for sample in synthesize(picture, request, synthesizer)
    ]

    assert all(size_px[0] <= side <= size_px[1] for side in sides)


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_a_defects_contrast_is_in_the_range_at_any_depth(
    synthesizer: Synthesizer, dtype: str, channels: tuple[int, ...]
) -> None:
    picture = plate(dtype, channels)
    request = SynthesisRequest(0, count=6, contrast=(10.0, 20.0))

    samples = list(synthesize(picture, request, synthesizer))

    reached = [contrast(picture.pixels, sample.pixels, sample.mask) for sample in samples]
    assert all(9.5 <= change <= 20.5 for change in reached)
    assert max(reached) - min(reached) > 2
    for sample in samples:
        require_identity_outside(sample, picture.pixels)


def test_a_contrast_that_the_ground_cannot_give_is_drawn_again_and_counted(
    synthesizer: Synthesizer,
) -> None:
    pixels = np.full((160, 240, 3), 40, np.uint8)
    pixels[:, 120:] = 200
    request = SynthesisRequest(0, count=8, region=(0, 0, 240, 160), contrast=(100.0, 150.0))

    samples = list(synthesize(Picture(pixels), request, synthesizer))

    rejected = sum((sample.rejected for sample in samples), Counter())
    assert rejected["contrast"] > 0
    assert not any(sample.mask[:, :110].any() for sample in samples)


def test_labels_come_in_the_shares_that_are_asked_for(synthesizer: Synthesizer) -> None:
    request = SynthesisRequest(0, count=60, labels={"pit": 3.0, "scratch": 1.0})

    drawn = Counter(s.defects[0].label for s in synthesize(plate(), request, synthesizer))

    assert drawn["pit"] == pytest.approx(45, abs=10)
    assert drawn["scratch"] == 60 - drawn["pit"]


def test_a_clients_mask_takes_a_contrast_and_shares(synthesizer: Synthesizer) -> None:
    mask = box_mask((50, 50, 12, 9), (120, 80, 20, 4))
    request = SynthesisRequest(4, mask=mask, contrast=(8.0, 9.0), labels={"scratch": 1.0})

    sample = one(plate(), request, synthesizer)

    assert {defect.label for defect in sample.defects} == {"scratch"}
    assert 7.5 <= contrast(plate().pixels, sample.pixels, mask) <= 9.5


def test_a_near_copy_of_a_training_defect_is_drawn_again_and_counted(
    synthesizer: Synthesizer,
) -> None:
    request = SynthesisRequest(0, count=6, label="pit")
    first = one(plate(), replace(request, count=1), synthesizer)
    taken = take_fingerprint(plate().pixels, first.pixels, first.mask)
    shapes = dict(synthesizer.params.shapes)
    known = {"fingerprints": write_fingerprints(taken[None]), "copy_similarity": 0.995}
    shapes["pit"] = shapes["pit"].model_copy(update=known)
    params = synthesizer.params.model_copy(update={"shapes": shapes})

    samples = list(synthesize(plate(), request, replace(synthesizer, params=params)))

    assert sum(sample.rejected["copy"] for sample in samples) > 0
    for sample in samples:
        made = take_fingerprint(plate().pixels, sample.pixels, sample.mask)
        assert similarity(made[None], taken[None]).max() <= 0.995


def test_one_sample_that_cannot_be_made_leaves_those_before_it(synthesizer: Synthesizer) -> None:
    pixels = np.zeros((160, 240, 3), np.uint8)
    pixels[:, 200:] = 200
    params = synthesizer.params.model_copy(update={"max_attempts": 2})
    request = SynthesisRequest(0, count=40, region=(0, 0, 240, 160))

    samples = synthesize(Picture(pixels), request, replace(synthesizer, params=params))
    made = []
    with pytest.raises(ParameterInvalid, match="in 2 draws"):
        made.extend(iter(samples.__next__, None))

    assert len(made) > 0
    assert [sample.seed for sample in made] == list(range(len(made)))


def test_a_sites_size_follows_the_labels_shape(synthesizer: Synthesizer) -> None:
    shape = synthesizer.params.shapes["pit"].model_copy(update={"sides_px": (60.0, 70.0)})
    params = synthesizer.params.model_copy(update={"shapes": {"pit": shape, "scratch": shape}})
    larger = replace(synthesizer, params=params)

    small = one(plate(), SynthesisRequest(0), synthesizer).mask.sum()
    large = one(plate(), SynthesisRequest(0), larger).mask.sum()

    assert large > 5 * small


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": -1}, "seed"),
        ({"count": 0}, "count"),
        ({"defects": 0}, "defects"),
        ({"label": "dent"}, "label"),
        ({"region": (0, 0, 0, 5)}, "region"),
        ({"region": (200, 0, 41, 5)}, "region"),
        ({"region": (-1, 0, 5, 5)}, "region"),
        ({"labels": {"dent": 1.0}}, "labels"),
        ({"labels": {"pit": 1.0}, "label": "pit"}, "labels"),
        ({"size_px": (9, 8)}, "size_px"),
        ({"size_px": (9, 159)}, "size_px"),
        ({"size_px": (30, 40), "region": (50, 50, 20, 20)}, "size_px"),
        ({"contrast": (9.0, 8.0)}, "contrast"),
        ({"contrast": (0.5, 1.5)}, "contrast"),
    ],
)
def test_what_cannot_be_met_is_refused_at_the_call_by_name(
    synthesizer: Synthesizer, changes: dict[str, object], field: str
) -> None:
    request = replace(SynthesisRequest(seed=0), **changes)  # type: ignore[arg-type]

    with pytest.raises(ParameterInvalid) as refusal:
        synthesize(plate(), request, synthesizer)

    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.ones((160, 239), bool), "239 × 160 px, the picture 240 × 160"),
        (np.ones((240, 160), bool), "160 × 240 px"),
        (np.zeros((160, 240), bool), "empty"),
        (box_mask(*[(3 * i, 40, 1, 5) for i in range(65)]), "65 4-connected regions; at most 64"),
    ],
    ids=["size", "turned", "empty", "crowded"],
)
def test_a_mask_that_cannot_be_painted_is_refused_at_the_call(
    synthesizer: Synthesizer, mask: Mask, reason: str
) -> None:
    with pytest.raises(MaskMismatch, match=reason):
        synthesize(plate(), SynthesisRequest(0, mask=mask), synthesizer)


def test_an_object_that_is_not_there_leaves_no_place(synthesizer: Synthesizer) -> None:
    rule = synthesizer.params.object_rule.model_copy(update={"margin_hw": (0.5, 0.5)})
    params = synthesizer.params.model_copy(update={"object_rule": rule})

    with pytest.raises(ParameterInvalid, match="no pixel of the object"):
        synthesize(plate(), SynthesisRequest(0), replace(synthesizer, params=params))


def test_a_picture_beyond_the_bundles_limits_is_refused_at_the_call(
    synthesizer: Synthesizer,
) -> None:
    limits = synthesizer.limits.model_copy(update={"max_pixels": 1000})

    with pytest.raises(PictureTooSmall):
        synthesize(Picture(np.zeros((15, 99), np.uint8)), SynthesisRequest(0), synthesizer)
    with pytest.raises(PictureTooLarge):
        synthesize(plate(), SynthesisRequest(0), replace(synthesizer, limits=limits))


@pytest.mark.parametrize(
    "asked",
    [{"region": (0, 0, 9, 9)}, {"defects": 2}, {"size_px": (3, 9)}],
    ids=["region", "defects", "size_px"],
)
def test_a_place_a_size_or_a_number_beside_a_mask_is_refused(
    synthesizer: Synthesizer, asked: dict[str, Any]
) -> None:
    mask = box_mask((40, 40, 6, 6))

    with pytest.raises(ParameterInvalid, match="no use beside a mask"):
        synthesize(plate(), SynthesisRequest(seed=1, mask=mask, **asked), synthesizer)
