from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from training.recipes import Schedule
from training.trainers.adversarial import (
    adams,
    change_inside,
    descend,
    only_learn,
    shift_and_relight,
    soften,
    stack,
    unit,
    weighted,
)


def test_picture_and_mask_are_shifted_together():
    torch.manual_seed(0)
    mask = torch.zeros(6, 1, 32, 32)
    mask[:, :, 12:20, 10:18] = 1.0
    image = mask.expand(6, 3, 32, 32).clone()

    shifted, moved = shift_and_relight(image, mask)

    assert not torch.equal(moved, mask)
    assert moved.sum((1, 2, 3)).tolist() == [64.0] * 6
    for one, where in zip(shifted, moved, strict=True):
        inside, outside = one[:, where[0] == 1], one[:, where[0] == 0]
        assert inside.std() < 1e-6
        assert inside.min() > outside.max()


def test_bytes_are_shifted_as_shares_of_one():
    image = torch.full((1, 16, 16, 3), 255, dtype=torch.uint8)

    shifted, _ = shift_and_relight(image, torch.zeros(1, 1, 16, 16))

    assert shifted.shape == (1, 3, 16, 16)
    assert 0.85 <= shifted.max() <= 1.15


def test_a_softened_mask_has_soft_edges_alone():
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 3:] = 1.0

    assert torch.allclose(soften(mask)[0, 0, 4, 1:5], torch.tensor([0, 1 / 3, 2 / 3, 1.0]))


def test_change_is_the_mean_inside_the_mask():
    before, mask = torch.zeros(1, 3, 2, 2), torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    after = before.clone()
    after[0, :, 0, 0], after[0, :, 1, 1] = 0.6, 1.0

    assert change_inside(after, before, mask).tolist() == pytest.approx([0.3])


def test_critics_learn_at_twice_the_rate_of_the_generator():
    networks = {name: nn.Linear(1, 1) for name in ("generator", "first", "second")}
    schedule = Schedule(steps=1, batch=1, learning_rate=1e-3, validate_every=1)

    made = adams(dict(networks), schedule)

    rates = {name: made[name].param_groups[0]["initial_lr"] for name in made}
    assert rates == {"generator": 1e-3, "critics": 2e-3}
    assert len(made["critics"].param_groups[0]["params"]) == 4


def test_only_the_named_networks_learn():
    networks: dict[str, nn.Module] = {name: nn.Linear(1, 1) for name in ("a", "b")}

    only_learn(networks, ("b",))

    assert [next(n.parameters()).requires_grad for n in networks.values()] == [False, True]


def test_a_descent_goes_down(fabric):
    layer = nn.Linear(1, 1)
    network, optimizer = fabric.setup(layer, torch.optim.SGD(layer.parameters(), lr=0.1))
    x = torch.ones(1, 1)
    before = network(x).square()

    descend(optimizer, before.sum(), fabric)

    assert network(x).square() < before


def test_a_weight_of_nothing_switches_a_loss_off():
    losses = {"kept": torch.tensor(2.0), "off": torch.tensor(float("nan"))}

    assert weighted(losses, {"kept": 1.5, "off": 0.0}).item() == 3.0


def test_arrays_are_stacked_and_bytes_scaled():
    batch = stack([np.full((2, 2, 3), 51, np.uint8)] * 3)

    assert batch.shape == (3, 2, 2, 3)
    assert torch.allclose(unit(batch), torch.full((3, 3, 2, 2), 0.2))
