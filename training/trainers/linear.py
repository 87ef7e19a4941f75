"""The plainest segmenter that can tell what pairs are worth: a frozen encoder, one linear layer.

Its training has one best end, whatever the order of its crops, so it tells differences that are far
below the noise of a network trained for some steps; and it takes seconds.
Shape suffixes: b batch, c channels, h height, w width, n pixels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ParameterInvalid
from training.networks.encoders import lite0_encoder, scale_pixels
from training.recipes import DownstreamRecipe
from training.trainers.lessons import Lesson

CELL_PX = 4
"""Side of the cells that are told apart."""
DEFECT_CELLS, OTHER_CELLS = 20, 60
"""At most so many of a crop are looked at in the mean, drawn at random."""
DEFECT_SHARE, OTHER_SHARE = 0.5, 0.1
"""From that share of its pixels on a cell is defect, up to that it is none; between, neither.

Where a crop has no cell so full, its fullest ones are: cracks may be thinner than a cell.
"""
DECAY = 1e-3
"""What the squares of the layer's weights cost."""
LEAST_SPREAD = 1e-4
"""Added to the features' spreads: one that never changes is not divided by nothing."""


class LinearSegmenter(nn.Module):
    """Features of EfficientNet-Lite0 at strides 2 to 16, weighed by one linear layer."""

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.encoder = lite0_encoder(out_indices=(0, 1, 2, 3)).eval().requires_grad_(False)
        channels = self.describe(torch.zeros(1, 32, 32, 3, dtype=torch.uint8)).shape[1]
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("spread", torch.ones(channels))
        self.layer = nn.Linear(channels, 1)
        for weights in self.layer.parameters():
            nn.init.zeros_(weights)

    def forward(self, image_bhwc: Tensor) -> Tensor:
        """uint8 (B, H, W, 3), sides multiples of 32 -> logits (B, 1, H, W)."""
        logits = self.weigh(self.describe(image_bhwc).movedim(1, -1)).movedim(-1, 1)
        return F.interpolate(logits, scale_factor=float(CELL_PX), mode="bilinear")

    @torch.no_grad()
    def describe(self, image_bhwc: Tensor) -> Tensor:
        """Features of every cell: (B, H, W, 3) -> (B, c, H/4, W/4)."""
        size = (image_bhwc.shape[1] // CELL_PX, image_bhwc.shape[2] // CELL_PX)
        scales = self.encoder(scale_pixels(image_bhwc))
        return torch.cat([_resize(scale, size) for scale in scales], dim=1)

    def weigh(self, features: Tensor) -> Tensor:
        """(..., c) -> (..., 1)."""
        logits: Tensor = self.layer((features - self.mean) / self.spread)
        return logits


def teach_linear(
    segmenter: LinearSegmenter, lesson: Lesson, recipe: DownstreamRecipe, *, seed: int
) -> None:
    """Logistic regression on cells of the recipe's crops, as many as its steps have, to its end.

    Both kinds of cells weigh the same. Errors: ParameterInvalid where the crops show no defect.
    """
    features_nc, is_defect_n = _look(segmenter, lesson, recipe, seed)
    if not is_defect_n.any():
        raise ParameterInvalid("segmenter", "no crop shows a defect to learn from")
    segmenter.mean.copy_(features_nc.mean(0))
    segmenter.spread.copy_(features_nc.std(0) + LEAST_SPREAD)
    share = is_defect_n.mean()
    weight_n = torch.where(is_defect_n > 0, 0.5 / share, 0.5 / (1 - share))
    optimizer = torch.optim.LBFGS(
        segmenter.layer.parameters(), max_iter=100, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits_n = segmenter.weigh(features_nc)[:, 0]
        entropy = F.binary_cross_entropy_with_logits(logits_n, is_defect_n, weight=weight_n)
        total = entropy + DECAY * segmenter.layer.weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]


def _look(
    segmenter: LinearSegmenter, lesson: Lesson, recipe: DownstreamRecipe, seed: int
) -> tuple[Tensor, Tensor]:
    """Features (n, c) of cells of the lesson's crops, and whether each is defect, (n,)."""
    features, kinds = [], []
    for step in range(recipe.schedule.steps):
        rng = np.random.default_rng([seed, step])
        batch = lesson.draw_batch(recipe, rng)
        of_batch = segmenter.describe(batch["image"]).movedim(1, -1).flatten(0, 2)
        share_b1hw = F.avg_pool2d(batch["mask"][:, None].float(), CELL_PX)
        fullest_b111 = share_b1hw.amax((1, 2, 3), keepdim=True)
        is_defect = (share_b1hw >= fullest_b111.clamp(max=DEFECT_SHARE)) & (share_b1hw > 0)
        for is_kind, most, kind in (
            (is_defect, DEFECT_CELLS, 1.0),
            ((share_b1hw <= OTHER_SHARE) & ~is_defect, OTHER_CELLS, 0.0),
        ):
            cells = np.flatnonzero(is_kind.flatten().numpy())
            chosen = rng.permutation(cells)[: most * recipe.schedule.batch]
            features.append(of_batch[chosen])
            kinds.append(torch.full((len(chosen),), kind))
    return torch.cat(features), torch.cat(kinds)


def _resize(scale_bchw: Tensor, size: tuple[int, int]) -> Tensor:
    if scale_bchw.shape[-1] > size[1]:
        return F.adaptive_avg_pool2d(scale_bchw, size)
    return F.interpolate(scale_bchw, size=size, mode="bilinear")
