from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from training.networks.blocks import FeatureModulation
from training.networks.books import CODE_NOISE, square_grid
from training.networks.generators import (
    BOX_SHARE,
    SHAPE_SCALE,
    DefectGenerator,
    MaskGenerator,
    PlainHead,
    defect_noise_size,
    spatial_noise_chw,
    to_unit,
)

PAGES = 4
LABELS = torch.arange(PAGES) % 2


def new_mask_generator(side_px: int = 64, *, pages: int = PAGES) -> MaskGenerator:
    """Untrained; its book, where there is one, holds discs of four radii."""
    torch.manual_seed(0)
    network = MaskGenerator(2, side_px=side_px, width=8, pages=pages).eval()
    if network.book is not None:
        radii = torch.linspace(0.2, 0.6, PAGES).reshape(-1, 1, 1, 1)
        discs = (radii - square_grid(side_px).norm(dim=-1)[None]) * 40
        network.book.fill(discs.clamp(-6, 6), LABELS)
    return network


def new_defect_generator(
    side_px: int = 64, *, pages: int = PAGES, modulated: bool = True, focused: bool = True
) -> DefectGenerator:
    """Untrained; its book, where there is one, holds four greys, the last one far the brightest."""
    torch.manual_seed(0)
    network = DefectGenerator(
        2, side_px=side_px, width=8, pages=pages, modulated=modulated, focused=focused
    ).eval()
    if network.book is not None:
        greys = torch.tensor([-1.5, -1.0, -0.5, 0.5]).reshape(-1, 1, 1, 1)
        network.book.fill(greys.expand_as(network.book.pages), LABELS)
    return network


def site(side_px: int = 64, *, batch: int = 2) -> dict[str, Tensor]:
    chance = torch.Generator().manual_seed(1)
    shape = (batch, side_px, side_px)
    mask = torch.zeros(shape, dtype=torch.uint8)
    mask[:, 20:36, 24:44] = 255
    return {
        "image": torch.randint(0, 256, (*shape, 3), generator=chance, dtype=torch.uint8),
        "object": torch.full(shape, 255, dtype=torch.uint8),
        "mask": mask,
        "label": torch.zeros(batch, dtype=torch.int64),
        "scale": torch.zeros(batch),
        "noise": torch.randn(batch, defect_noise_size(side_px), generator=chance),
        "spatial_noise": torch.randn(batch, *spatial_noise_chw(side_px), generator=chance),
    }


def imagine(network: MaskGenerator, given: dict[str, Tensor]) -> Tensor:
    names = ("image", "object", "label", "scale")
    with torch.no_grad():
        noises = given["noise"][:, :CODE_NOISE], given["spatial_noise"]
        return network(*(given[name] for name in names), *noises)


def paint(
    network: DefectGenerator, given: dict[str, Tensor], share: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    names = ("image", "mask", "label", "scale", "noise")
    with torch.no_grad():
        return network(*(given[name] for name in names), share)


@pytest.mark.parametrize("pages", [0, PAGES])
@pytest.mark.parametrize("side_px", [64, 96])
def test_a_mask_has_its_squares_side_and_shares_of_one(side_px, pages):
    mask = imagine(new_mask_generator(side_px, pages=pages), site(side_px, batch=3))

    assert mask.shape == (3, 1, side_px, side_px)
    assert 0 <= mask.min() < mask.max() <= 1


@pytest.mark.parametrize("pages", [0, PAGES])
@pytest.mark.parametrize("name", ["image", "object", "label", "scale", "noise", "spatial_noise"])
def test_a_mask_changes_with_every_input(pages, name):
    network, given = new_mask_generator(pages=pages), site()
    network.head.weight.data *= 300
    changes = {
        "object": given["object"] // 2,
        "image": 255 - given["image"],
        "spatial_noise": -given["spatial_noise"],
    }
    other = given | {name: changes.get(name, given[name] + 1)}

    assert (imagine(network, given) - imagine(network, other)).abs().max() > 1e-5


def test_a_mask_does_not_depend_on_the_rest_of_its_batch():
    network, given = new_mask_generator(), site()

    both = imagine(network, given)
    alone = imagine(network, {name: value[:1] for name, value in given.items()})

    assert torch.allclose(both[:1], alone, atol=1e-5)


def test_an_untrained_mask_generator_answers_with_the_shape_its_noise_chooses():
    network, given = new_mask_generator(), site(batch=PAGES) | {"label": LABELS}
    assert network.book is not None
    given["noise"].zero_()[:, : network.book.directions.shape[1]] = (
        4 * network.book.directions[:PAGES]
    )

    masks = imagine(network, given) >= 0.5

    assert (masks == (network.book.pages > 0)).float().mean() > 0.99
    areas = masks.sum((1, 2, 3))
    assert (areas.diff() > 100).all()


def test_without_a_book_a_mask_generator_must_imagine_by_itself():
    bare, given = new_mask_generator(pages=0), site()

    assert not any(name.startswith("book.") for name in bare.state_dict())
    logits = imagine(bare, given).logit()
    with_book = new_mask_generator()
    assert bare.head.weight.std() > 10 * with_book.head.weight.std()
    assert logits.std() > 0.01
    assert logits.abs().max() < SHAPE_SCALE


def test_the_switches_change_no_weights_but_their_own():
    whole = {n: v.shape for n, v in new_defect_generator().state_dict().items()}
    kept = {
        "book": {n for n in whole if not n.startswith(("book.", "strength"))},
        "modulated": {n for n in whole if not n.startswith("modulations.")},
        "focused": {n for n in whole if not n.startswith("focus.")},
    }
    bare = {
        "book": new_defect_generator(pages=0),
        "modulated": new_defect_generator(modulated=False),
        "focused": new_defect_generator(focused=False),
    }

    for part, network in bare.items():
        shapes = {n: v.shape for n, v in network.state_dict().items()}
        assert all(shapes[name] == whole[name] for name in kept[part])
        assert shapes != whole


VARIANTS = [{}, {"pages": 0}, {"modulated": False}, {"focused": False}]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("side_px", [64, 96])
def test_foreground_and_alpha_have_their_squares_side(side_px, variant):
    foreground, alpha = paint(new_defect_generator(side_px, **variant), site(side_px, batch=3))

    assert foreground.shape == (3, 3, side_px, side_px)
    assert alpha.shape == (3, 1, side_px, side_px)
    assert all(0 <= part.min() < part.max() <= 1 for part in (foreground, alpha))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("name", ["image", "mask", "label", "scale", "noise"])
def test_a_foreground_changes_with_every_input(variant, name):
    network, given = new_defect_generator(**variant), site()
    last = [module for module in network.focus.modules() if isinstance(module, nn.Conv2d)][-1]
    last.weight.data *= 300
    changes = {"mask": given["mask"].roll(6, 1), "image": 255 - given["image"]}
    other = given | {name: changes.get(name, given[name] + 1)}

    change = paint(network, given)[0] - paint(network, other)[0]

    assert change.abs().max() > 1e-5


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_what_lies_under_the_mask_is_hidden_from_the_painter(variant):
    network, given = new_defect_generator(**variant), site()
    inside = (given["mask"] == 255)[..., None]
    other = given | {"image": torch.where(inside, 255 - given["image"], given["image"])}

    for one, two in zip(paint(network, given), paint(network, other), strict=True):
        assert (one - two).abs().max() < 2e-3


def test_an_untrained_painter_fills_the_mask_with_the_page_it_is_opened_at():
    network, given = new_defect_generator(), site(batch=PAGES)
    given["image"].fill_(128)
    given["noise"].zero_()

    foreground, alpha = paint(network, given, torch.eye(2 * PAGES)[:PAGES])

    inside = foreground[:, :, 20:36, 24:44].mean((1, 2, 3))
    expected = (128 / 255 + 0.05) * torch.tensor([-1.5, -1.0, -0.5, 0.5]).exp() - 0.05
    assert torch.allclose(inside, expected, atol=0.02)
    assert alpha.min() > 0.8


def test_a_page_is_laid_over_the_box_of_the_mask():
    network, given = new_defect_generator(), site(batch=1)
    assert network.book is not None
    left_dark = square_grid(32)[..., 0].sign().expand(1, 3, 32, 32)
    network.book.fill(left_dark.expand(PAGES, -1, -1, -1), LABELS)
    given["image"].fill_(128)
    given["noise"].zero_()

    foreground, _ = paint(network, given, torch.eye(2 * PAGES)[:1])

    row = foreground[0, 0, 28]
    assert (row[24:33] < 0.2).all()
    assert (row[35:44] > 0.9).all()


def test_the_box_of_the_mask_takes_its_share_of_the_page():
    network, given = new_defect_generator(), site(batch=1)
    assert network.book is not None
    margin = square_grid(32).abs().amax(-1) > BOX_SHARE
    network.book.fill((margin * -2.0).expand(PAGES, 3, -1, -1), LABELS)
    given["image"].fill_(128)
    given["noise"].zero_()

    foreground, _ = paint(network, given)

    row = foreground[0, 0, 28]
    assert (row[26:42] > 0.4).all()
    assert row[:20].max() < 0.2
    assert row[48:].max() < 0.2


def test_the_defect_generator_ends_in_two_feature_modulations_that_can_be_left_out():
    def kinds(network: nn.Module) -> list[type[nn.Module]]:
        return [type(module) for module in network.modules()]

    assert kinds(new_defect_generator()).count(FeatureModulation) == 2
    assert FeatureModulation not in kinds(new_defect_generator(modulated=False))
    assert PlainHead in kinds(new_defect_generator(focused=False))
    assert PlainHead not in kinds(new_defect_generator())


def test_pixels_are_brought_to_one_on_both_sides_of_nothing():
    image = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 1, 1, 3)

    assert torch.allclose(to_unit(image).flatten(), torch.tensor([-1.0, 1.0, -0.6]))
