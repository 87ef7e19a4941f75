"""Every loss as one formula with its source."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def heatmap_focal_loss(
    logits: Tensor, target: Tensor, *, alpha: float = 2.0, beta: float = 4.0
) -> Tensor:
    """Penalty-reduced focal loss on a heatmap, per defect centre.

        L = -1/N * sum( (1 - p)^alpha * log(p)               where target is 1
                        (1 - t)^beta * p^alpha * log(1 - p)  elsewhere )

    Shapes: logits and target (B, 1, h, w); target in 0..1, exactly 1 on a centre.
    Source: "Objects as Points", Zhou et al. 2019, eq. 1 (arXiv:1904.07850).
    """
    p = logits.sigmoid()
    is_centre = target == 1
    on_centre = (1 - p) ** alpha * F.logsigmoid(logits)
    elsewhere = (1 - target) ** beta * p**alpha * F.logsigmoid(-logits)
    return -torch.where(is_centre, on_centre, elsewhere).sum() / is_centre.sum().clamp(min=1)


def offset_loss(offsets: Tensor, target: Tensor, is_centre: Tensor) -> Tensor:
    """L1 between predicted and true offsets, on the cells that hold a centre.

    Shapes: offsets and target (B, 2, h, w) in cells; is_centre (B, 1, h, w) bool.
    Source: "Objects as Points", Zhou et al. 2019, eq. 2 (arXiv:1904.07850).
    """
    gap = (offsets - target).abs() * is_centre
    return gap.sum() / is_centre.sum().clamp(min=1)


def dice_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """1 - soft Dice of defect against background, over the batch.

        L = 1 - (2 Σ w p t + 1) / (Σ w p + Σ w t + 1),   p = 1 - softmax(background)

    Shapes: logits (B, 1 + K, H, W); labels (B, H, W) int64, 0 the background; weights w (B, H, W),
            1 where there are none.
    Source: "V-Net", Milletari et al. 2016 (arXiv:1606.04797), with the sums unsquared.
    """
    p = 1 - logits.softmax(1)[:, 0]
    t = (labels > 0).float()
    w = torch.ones_like(t) if weights is None else weights
    return 1 - (2 * (w * p * t).sum() + 1) / ((w * p).sum() + (w * t).sum() + 1)


def critic_hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What a critic minimises: real scores above 1, generated below -1.

    Source: "Geometric GAN", Lim & Ye 2017, eq. 15 (arXiv:1705.02894).
    """
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def generator_hinge_loss(fake: Tensor) -> Tensor:
    """What a generator minimises against a hinge critic: the negated mean score."""
    return -fake.mean()


def boundary_aware_loss(mask: Tensor, legal: Tensor, distance: Tensor) -> Tensor:
    """Mask outside the object, weighted by how far outside, as a share of the mask.

        L = Σ M (1 - S) (1 + dist / 8) / Σ M

    Shapes: mask (B, 1, h, w) in 0..1; legal (B, 1, h, w) the object S, 1 inside; distance
            (B, 1, h, w) px to the object.
    Source: patent "A defect image generation method", object-boundary-aware loss.
    """
    outside = mask * (1 - legal) * (1 + distance / 8)
    return outside.sum() / mask.sum().clamp(min=1.0)


def log_area_loss(generated: Tensor, real: Tensor) -> Tensor:
    """Distance between mean and spread of the log-areas of two batches of masks.

    Shapes: both (B, 1, h, w) in 0..1.
    """
    fake, true = (m.mean((1, 2, 3)).clamp(min=1e-4).log() for m in (generated, real))
    return (fake.mean() - true.mean()).abs() + (fake.std() - true.std()).abs()


def mode_seeking_loss(first: Tensor, second: Tensor, noise_gap: Tensor) -> Tensor:
    """The inverse of how much two noises change the output: large where the noise is ignored.

        L = 1 / ( mean|G(z1) - G(z2)| / mean|z1 - z2| + ε )

    Shapes: first and second (B, ...) outputs; noise_gap (B,) mean absolute noise differences.
    Source: "Mode Seeking GANs", Mao et al. 2019, eq. 3 (arXiv:1903.05628).
    """
    change = (first - second).abs().flatten(1).mean(1)
    return (1.0 / (change / noise_gap.clamp(min=1e-4) + 0.05)).mean()


def binary_mask_loss(mask: Tensor) -> Tensor:
    """Σ M (1 - M) ÷ Σ M: small where every pixel has made up its mind."""
    return (mask * (1 - mask)).sum() / mask.sum().clamp(min=1.0)


def visibility_loss(contrast: Tensor, least: Tensor) -> Tensor:
    """Hinge on how much a painted defect changes its pixels: none where visible enough.

    Shapes: contrast (B,) mean absolute change inside the mask, least (B,) its label's limit.
    """
    return F.relu(1 - contrast / least).mean()


def texture_loss(first: list[Tensor], second: list[Tensor], mask: Tensor) -> Tensor:
    """Difference of the local means and spreads of a fixed network's features around the mask.

        L = 1/n Σ_l  Σ M (|μ(a) - μ(b)| + |σ(a) - σ(b)|) / Σ M / (mean|μ(b)| + mean σ(b))

    μ and σ are taken over the cells of layer l, so that grain may lie anywhere in them; M are the
    cells that the mask touches. A cell is 8 px of the picture, but 4 of the layer's at least.

    Shapes: lists of (B, c, h, w), the finest first; mask (B, 1, H, W).
    Source: "Image Style Transfer", Gatys et al. 2016, with moments for Gram matrices as in
            "Demystifying Neural Style Transfer", Li et al. 2017 (arXiv:1701.01036).
    """
    total = torch.zeros((), device=mask.device)
    for a, b in zip(first, second, strict=True):
        cell = max(4, 8 * a.shape[2] // mask.shape[2])
        near = F.adaptive_max_pool2d(mask, a.shape[2] // cell)
        gap = torch.zeros_like(near)
        scale = torch.zeros((), device=mask.device)
        for x, y in zip(_moments(a, cell), _moments(b, cell), strict=True):
            gap = gap + (x - y).abs().mean(1, keepdim=True)
            scale = scale + y.abs().mean()
        total = total + (gap * near).sum() / near.sum().clamp(min=1) / scale.clamp(min=1e-3)
    return total / len(first)


def _moments(x: Tensor, cell: int) -> tuple[Tensor, Tensor]:
    """Mean and spread over each cell × cell values, in full precision: (B, c, h/cell, w/cell)."""
    x = x.float()
    mean = F.avg_pool2d(x, cell)
    variance = F.avg_pool2d(x**2, cell) - mean**2
    return mean, (variance.clamp(min=0) + 1e-5).sqrt()
