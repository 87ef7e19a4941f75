from __future__ import annotations

import pytest
import torch

from training.networks.deeppose import LOGIT, DeepPose, Lesson, X, Y, cut_squares, size_of

LOOK_HW, SIDE_PX, REFINED = (64, 96), 64, 3


@pytest.fixture(scope="module")
def network() -> DeepPose:
    torch.manual_seed(0)
    return DeepPose(LOOK_HW, SIDE_PX, REFINED).eval()


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


@pytest.mark.parametrize("hw", [(40, 50), (200, 333)])
def test_a_picture_of_any_size_gets_a_point_for_each_region_of_its_look(network, hw):
    with torch.no_grad():
        points = network(noise(1, *hw, 3), noise(1, *LOOK_HW, 3))

    assert points.shape == (1, 6, 4)
    assert (points[..., 3] > 0).all()


def test_an_untrained_glance_puts_every_point_into_its_region_and_is_sure_of_none(network):
    size = torch.tensor([[960.0, 640.0]])

    with torch.no_grad():
        rough = network.glance(noise(1, *LOOK_HW, 3), size)[0]

    expected = network.glance.anchors() * 320
    assert (rough[:, X : Y + 1] - expected).abs().max() < 160
    assert rough[:, LOGIT].sigmoid().mean() < 0.03


def test_every_slot_sees_the_whole_picture(network):
    dark = torch.full((1, *LOOK_HW, 3), 128, dtype=torch.uint8)
    lit = dark.clone()
    lit[:, :16, -16:] = 255
    size = torch.tensor([[960.0, 640.0]])

    with torch.no_grad():
        change = (network.glance(lit, size) - network.glance(dark, size)).abs().sum(2)[0]

    assert (change > 0).all()


def test_what_was_not_refined_stays_beneath_what_was_in_its_own_order(network):
    image, look = noise(1, 200, 300, 3), noise(1, *LOOK_HW, 3)

    with torch.no_grad():
        rough, told = network.glance(look, size_of(image))[0], network(image, look)[0]

    chosen = rough[:, LOGIT].topk(REFINED).indices
    rest = [k for k in range(len(rough)) if k not in chosen]
    assert told[rest, LOGIT].max() <= told[chosen, LOGIT].min()
    assert torch.equal(told[rest, LOGIT].argsort(), rough[rest, LOGIT].argsort())
    assert torch.equal(told[rest, X:], rough[rest, X:])
    assert not torch.equal(told[chosen, X:], rough[chosen, X:])


def test_in_training_the_strongest_slots_and_the_hinted_ones_are_refined(network):
    hints = torch.tensor([[4, 1], [0, 5]])

    with torch.no_grad():
        lesson = network(
            noise(2, 100, 150, 3), noise(2, *LOOK_HW, 3), torch.full((2, 2), 90.0), hints
        )

    assert isinstance(lesson, Lesson)
    assert lesson.rough_bk4.shape == (2, 6, 4)
    assert lesson.tried_bn4.shape == lesson.fine_bn4.shape == (2, 4, 4)
    given = lesson.rough_bk4[..., LOGIT].gather(1, hints)
    assert torch.equal(lesson.tried_bn4[:, 2:, LOGIT], given)


def test_squares_are_the_pictures_own_pixels():
    image = noise(2, 50, 70, 3)
    points = torch.tensor([[[20.0, 30.0], [41.0, 17.0]], [[10.0, 40.0], [62.0, 8.0]]])

    squares = cut_squares(image, points, 16)

    assert squares.shape == (2, 2, 16, 16, 3)
    assert torch.equal(squares[0, 0], image[0, 22:38, 12:28])
    assert torch.equal(squares[1, 1], image[1, 0:16, 54:70])


def test_beyond_the_picture_a_square_repeats_its_edge():
    image = noise(1, 20, 30, 3)

    (square,) = cut_squares(image, torch.tensor([[[0.0, 24.0]]]), 16)[0]

    assert torch.equal(square[:4, 8:], image[0, 16:20, :8])
    assert torch.equal(square[4:, 8:], image[0, 19:20, :8].expand(12, 8, 3))
    assert torch.equal(square[:4, :8], image[0, 16:20, :1].expand(4, 8, 3))


def test_a_pictures_size_is_width_then_height():
    assert size_of(noise(2, 20, 30, 3)).tolist() == [[30.0, 20.0]] * 2
