from __future__ import annotations

import pytest
import torch

from training.networks.critics import Critic


@pytest.mark.parametrize("side_px", [32, 64, 96])
def test_a_critic_gives_one_score_a_picture_of_any_side(side_px):
    critic = Critic(4, labels=2, width=8)

    assert critic(torch.randn(3, 4, side_px, side_px), torch.tensor([0, 1, 0])).shape == (3,)


def test_a_critic_judges_by_the_label_too():
    torch.manual_seed(0)
    critic, picture = Critic(4, labels=2, width=8).eval(), torch.randn(1, 4, 32, 32)

    scores = [critic(picture, torch.tensor([label])).item() for label in (0, 1)]

    assert scores[0] != scores[1]
