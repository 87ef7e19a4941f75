from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.networks.generators import (
    DefectGenerator,
    MaskGenerator,
    around,
    spatial_noise_chw,
    to_unit,
)


@pytest.fixture(scope="module")
def mask_generator() -> MaskGenerator:
    torch.manual_seed(0)
    return MaskGenerator(2, side_px=64, width=8, noise_size=16).eval()


@pytest.fixture(scope="module")
def defect_generator() -> DefectGenerator:
    torch.manual_seed(0)
    return DefectGenerator(2, side_px=64, width=8, noise_size=16).eval()


def site(side_px: int, *, batch: int = 2) -> dict[str, Tensor]:
    chance = torch.Generator().manual_seed(1)
    shape = (batch, side_px, side_px)
    return {
        "image": torch.randint(0, 256, (*shape, 3), generator=chance, dtype=torch.uint8),
        "object": torch.full(shape, 255, dtype=torch.uint8),
        "mask": torch.zeros(shape, dtype=torch.uint8),
        "label": torch.zeros(batch, dtype=torch.int64),
        "scale": torch.zeros(batch),
        "noise": torch.randn(batch, 16, generator=chance),
        "spatial_noise": torch.randn(batch, *spatial_noise_chw(side_px), generator=chance),
    }


def imagine(network: MaskGenerator, given: dict[str, Tensor]) -> Tensor:
    names = ("image", "object", "label", "scale", "noise", "spatial_noise")
    with torch.no_grad():
        return network(*(given[name] for name in names))


def paint(network: DefectGenerator, given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return network(*(given[name] for name in ("image", "mask", "label", "scale", "noise")))


@pytest.mark.parametrize("side_px", [64, 96])
def test_a_mask_has_its_squares_side_and_shares_of_one(mask_generator, side_px):
    mask = imagine(mask_generator, site(side_px, batch=3))

    assert mask.shape == (3, 1, side_px, side_px)
    assert 0 <= mask.min() < mask.max() <= 1


@pytest.mark.parametrize("name", ["image", "object", "label", "scale", "noise", "spatial_noise"])
def test_a_mask_changes_with_every_input(mask_generator, name):
    given = site(64)
    changes = {"object": given["object"] // 2, "image": 255 - given["image"]}
    other = given | {name: changes.get(name, given[name] + 1)}

    assert (imagine(mask_generator, given) - imagine(mask_generator, other)).abs().max() > 1e-5


def test_a_mask_does_not_depend_on_the_rest_of_its_batch(mask_generator):
    given = site(64)

    both = imagine(mask_generator, given)
    alone = imagine(mask_generator, {name: value[:1] for name, value in given.items()})

    assert torch.allclose(both[:1], alone, atol=1e-5)


@pytest.mark.parametrize("side_px", [64, 96])
def test_foreground_and_alpha_have_their_squares_side(defect_generator, side_px):
    foreground, alpha = paint(defect_generator, site(side_px, batch=3))

    assert foreground.shape == (3, 3, side_px, side_px)
    assert alpha.shape == (3, 1, side_px, side_px)
    assert all(0 <= part.min() < part.max() <= 1 for part in (foreground, alpha))


@pytest.mark.parametrize("name", ["image", "mask", "label", "scale", "noise"])
def test_a_foreground_changes_with_every_input(defect_generator, name):
    given = site(64)
    changes = {"mask": given["mask"] + 255, "image": 255 - given["image"]}
    other = given | {name: changes.get(name, given[name] + 1)}

    change = paint(defect_generator, given)[0] - paint(defect_generator, other)[0]

    assert change.abs().max() > 1e-5


def test_the_defect_generator_ends_in_two_feature_modulations(defect_generator):
    assert len(defect_generator.modulations) == 2


def test_around_is_the_local_mean():
    flat = torch.full((1, 2, 32, 32), 0.3)

    assert torch.allclose(around(flat, 3), flat)
    assert around(torch.rand(1, 1, 32, 32), 5).std() < 0.1


def test_pixels_are_brought_to_one_on_both_sides_of_nothing():
    image = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 1, 1, 3)

    assert torch.allclose(to_unit(image).flatten(), torch.tensor([-1.0, 1.0, -0.6]))
