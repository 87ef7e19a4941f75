from __future__ import annotations

import pytest
import torch
from torch import nn

from training.networks.blocks import Condition, Down, FeatureModulation, Film, double, sharp_conv


def test_film_keeps_the_shape_and_follows_its_condition():
    torch.manual_seed(0)
    film, x = Film(16, 8), torch.randn(2, 16, 6, 6)

    one, other = film(x, torch.randn(2, 8)), film(x, torch.randn(2, 8))

    assert one.shape == x.shape
    assert not torch.allclose(one, other)


def test_feature_modulation_follows_the_mask_in_each_pixel():
    torch.manual_seed(0)
    modulate = FeatureModulation(16, 8, embedding_size=4, condition_size=8)
    x, condition = torch.randn(1, 16, 12, 12), torch.randn(1, 8)
    embedding = torch.zeros(1, 4, 12, 12)
    marked = embedding.clone()
    marked[..., 2:4, 2:4] = 5.0

    change = (modulate(x, marked, condition) - modulate(x, embedding, condition)).abs().sum(1)[0]

    assert change.shape == (12, 12)
    assert change[1:5, 1:5].min() > 0
    assert change[6:, 6:].max() == 0


def test_down_halves_and_double_doubles():
    x = torch.randn(1, 8, 10, 14)

    assert Down(8, 16)(x).shape == (1, 16, 5, 7)
    assert double(x).shape == (1, 8, 20, 28)


def test_a_condition_hears_noise_label_and_scale():
    torch.manual_seed(0)
    condition = Condition(4, 3, 8)
    noise, label, scale = torch.randn(1, 4), torch.tensor([0]), torch.tensor([0.0])

    usual = condition(noise, label, scale)

    assert usual.shape == (1, 8)
    for changed in (
        (noise + 1, label, scale),
        (noise, label + 1, scale),
        (noise, label, scale + 1),
    ):
        assert not torch.allclose(condition(*changed), usual)


def test_a_critics_convolution_has_a_spectral_norm_of_one():
    torch.manual_seed(0)
    conv = sharp_conv(3, 8).train()

    for _ in range(50):
        conv(torch.randn(1, 3, 8, 8))

    assert isinstance(conv, nn.Conv2d)
    norm = torch.linalg.matrix_norm(conv.weight.flatten(1), ord=2).item()
    assert norm == pytest.approx(1.0, abs=1e-3)
