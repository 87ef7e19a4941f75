from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.attempts import (
    HALF_A_LEVEL,
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
from models.bundle import Bundle
from models.steps.contexts import write_contexts
from models.steps.controls import choose_labels
from models.steps.copies import take_fingerprint, write_fingerprints
from models.steps.drafts import Draft, SyntheticDefect
from models.steps.outlines import find_regions
from models.steps.pictures import Picture


@pytest.fixture
def plan(tiny: Bundle) -> Plan:
    """Bright noise, a defect of any label anywhere."""
    pixels = np.random.default_rng(1).integers(150, 230, (120, 160, 3), np.uint8)
    return Plan(
        picture=Picture(pixels),
        image=pixels,
        allowed=np.ones((120, 160), bool),
        labels=choose_labels(tiny.manifest.labels, None, None),
        shapes=tuple(tiny.manifest.synthesis.shapes.values()),
        params=tiny.manifest.synthesis,
        shown_px=32,
        defects=2,
    )


def new_draft(seed: int = 0) -> Draft:
    return Draft(seed, np.random.default_rng(seed))


def disc(side_px: int, radius_px: float) -> np.ndarray:
    return np.hypot(*(np.mgrid[:side_px, :side_px] + 0.5 - side_px / 2)) < radius_px


def with_disc(attempt: Attempt, radius_px: float) -> Attempt:
    return replace(attempt, mask=disc(attempt.site.window.side_px, radius_px))


@pytest.mark.parametrize("size_px", [(60, 70), None])
def test_a_site_has_room_for_a_size_that_is_asked_for_or_as_real_ones_are(
    plan: Plan, size_px: tuple[int, int] | None
) -> None:
    asked = replace(plan, size_px=size_px)
    least, most = size_px or (8, 16)

    for seed in range(20):
        attempt = draw_attempt(new_draft(seed), asked)
        assert attempt.longest_px in range(least, most + 1)
        assert attempt.site.window.side_px >= attempt.longest_px + 2


def test_of_a_few_places_the_one_most_like_those_of_real_defects_is_taken(plan: Plan) -> None:
    pixels = plan.picture.pixels.copy()
    pixels[:, :80] = 20
    dark = write_contexts(np.full((1, 108), 20, np.uint8))
    shapes = tuple(s.model_copy(update={"contexts": dark}) for s in plan.shapes)

    def share_in_the_dark(places: int) -> float:
        params = plan.params.model_copy(update={"site_candidates": places})
        here = replace(plan, image=pixels, shapes=shapes, params=params)
        sites = [draw_attempt(new_draft(seed), here).site for seed in range(100)]
        return float(np.mean([site.image.max() == 20 for site in sites]))

    assert share_in_the_dark(1) < 0.6
    assert share_in_the_dark(8) > 0.9


def test_where_no_surroundings_are_known_every_place_is_as_good(plan: Plan) -> None:
    pits = replace(plan, labels=choose_labels(("pit", "scratch"), "pit", None))
    many = replace(pits, params=plan.params.model_copy(update={"site_candidates": 8}))

    first, same = (draw_attempt(new_draft(), p).site.window for p in (pits, many))

    assert first == same


def test_a_label_drawn_by_shares_stays_until_its_defect_is_there(plan: Plan) -> None:
    shares = replace(plan, labels=choose_labels(("pit", "scratch"), None, {"pit": 1, "scratch": 1}))
    draft = new_draft()

    by_shares = {draw_attempt(draft, shares).label for _ in range(20)}
    freely = {draw_attempt(draft, plan).label for _ in range(20)}

    assert len(by_shares) == 1
    assert freely == {0, 1}


def test_an_outline_is_followed_exactly_even_where_its_square_leaves_the_picture(
    plan: Plan,
) -> None:
    mask = np.zeros((120, 160), bool)
    mask[0:110, 150:160] = True
    asked = replace(plan, outlines=tuple(find_regions(mask)), defects=1)

    attempt = follow_outline(new_draft(), asked)

    assert attempt.mask.sum() == mask.sum()
    assert attempt.mask.shape == (attempt.site.window.side_px,) * 2


def test_contrasts_are_drawn_from_what_is_asked_and_visible(plan: Plan) -> None:
    asked = replace(plan, contrast=(0.5, 4.0))
    attempts = [draw_attempt(new_draft(seed), asked) for seed in range(200)]

    drawn = [draw_contrast(attempt, asked) for attempt in attempts]

    assert min(drawn) >= plan.shapes[0].min_contrast == 2.0
    assert max(drawn) <= 4.0
    assert max(drawn) - min(drawn) > 1.5
    assert draw_contrast(attempts[0], plan) is None


def test_a_mask_may_be_as_small_as_its_label_or_the_size_that_is_asked_for(plan: Plan) -> None:
    attempt = with_disc(draw_attempt(new_draft(), plan), 1.0)

    assert attempt.mask.sum() == 4
    assert objection_to_mask(attempt, plan) is None
    larger = [s.model_copy(update={"min_area_px": 16.0}) for s in plan.shapes]
    strict = replace(plan, shapes=tuple(larger))
    assert objection_to_mask(attempt, strict) == "empty"
    assert objection_to_mask(replace(attempt, longest_px=2), strict) is None


def test_a_mask_keeps_apart_from_the_drafts_own_defects(plan: Plan) -> None:
    attempt = with_disc(draw_attempt(new_draft(), plan), 4.0)
    window = attempt.site.window
    (region,) = find_regions(attempt.mask, offset_xy=(window.x, window.y))

    before = objection_to_mask(attempt, plan)
    attempt.draft.accept(SyntheticDefect("pit", region), np.zeros((1, 3), np.uint8))

    assert (before, objection_to_mask(attempt, plan)) == (None, "overlap")


def judged(plan: Plan, depth: int) -> str | None:
    """A disc that is `depth` grey levels darker, judged as the first label."""
    before = plan.picture.pixels[:40, :40]
    after = np.where(disc(40, 9)[..., None], before - np.uint8(depth), before)
    return objection_to_change(before, after, disc(40, 9), 0, plan)


def test_a_change_is_judged_by_what_is_asked_for_and_by_what_is_visible(plan: Plan) -> None:
    asked = replace(plan, contrast=(20.0, 40.0))

    assert (judged(plan, 1), judged(plan, 3)) == ("invisible", None)
    assert (judged(asked, 19), judged(asked, 20)) == ("contrast", None)


def test_a_near_copy_of_a_training_defect_is_objected_to_but_in_a_clients_own_mask(
    plan: Plan,
) -> None:
    before = plan.picture.pixels[40:80, 40:80]
    after = np.where(disc(40, 12)[..., None], before - np.uint8(90), before)
    known = write_fingerprints(take_fingerprint(before, after, disc(40, 12))[None])
    update = {"fingerprints": known, "copy_similarity": 0.95}
    wary = replace(plan, shapes=tuple(s.model_copy(update=update) for s in plan.shapes))
    mask = np.zeros((120, 160), bool)
    mask[:40, :40] = disc(40, 9)

    assert judged(wary, 30) == "copy"
    assert judged(replace(wary, outlines=tuple(find_regions(mask))), 30) is None
    lenient = tuple(s.model_copy(update={"copy_similarity": 1.0}) for s in wary.shapes)
    assert judged(replace(wary, shapes=lenient), 30) is None


@pytest.mark.parametrize(("depth", "strengthened"), [(0, False), (1, True), (2, False)])
def test_only_a_change_that_is_nearly_visible_is_strengthened(
    plan: Plan, depth: int, strengthened: bool
) -> None:
    shape = plan.shapes[0].model_copy(update={"min_contrast": 2.0})
    strict = replace(plan, shapes=(shape, *plan.shapes[1:]))
    before, mask = np.full((40, 40), 100, np.uint8), disc(40, 12)

    asked = faint_contrast(
        before, np.where(mask, before - np.uint8(depth), before), mask, 0, strict
    )

    assert asked == (2.0 + HALF_A_LEVEL if strengthened else None)


def test_a_draft_goes_on_while_it_lacks_a_defect_and_has_a_draw_left(plan: Plan) -> None:
    draft = new_draft()
    assert plan.goes_on(draft)

    for _ in range(plan.params.max_attempts):
        draft.reject("cut")

    assert not plan.goes_on(draft)
    assert not replace(plan, defects=0).goes_on(new_draft())


def test_a_refusal_names_what_was_in_the_way_most_often_first(plan: Plan) -> None:
    draft = new_draft()
    for reason in ("empty", "cut", "cut"):
        draft.reject(reason)

    refusal = no_place(draft, plan)

    assert refusal.field == "region"
    assert "3 draws (2 cut, 1 empty)" in str(refusal)
