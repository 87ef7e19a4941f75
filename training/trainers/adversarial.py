"""What both stages of synthesis share against their critics.

Shape suffixes: b batch, c channels, h height, w width.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from training.recipes import Schedule


def shift_and_relight(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """DiffAugment: brightness and translation, the same on a picture and its mask.

    Shapes: image (B, 3, h, w) in 0..1 or (B, h, w, 3) uint8; mask (B, 1, h, w).
    Source: "Differentiable Augmentation", Zhao et al. 2020 (arXiv:2006.10738).
    """
    pixels = unit(image) if image.dtype == torch.uint8 else image
    batch, _, height, width = pixels.shape
    gain = 0.2 * (torch.rand(batch, 1, 1, 1) - 0.5)
    pixels = pixels + gain.to(pixels.device)
    limit = height // 8
    moves = torch.randint(-limit, limit + 1, (batch, 2)).tolist()
    padded = F.pad(torch.cat([pixels, mask], dim=1), (limit,) * 4)
    shifted = torch.stack(
        [
            one[:, limit + dy : limit + dy + height, limit + dx : limit + dx + width]
            for one, (dy, dx) in zip(padded, moves, strict=True)
        ]
    )
    return shifted[:, :3], shifted[:, 3:]


def soften(mask_bchw: Tensor) -> Tensor:
    """A 3 × 3 mean, so that a critic cannot tell real masks by their hard edges."""
    return F.avg_pool2d(mask_bchw, 3, 1, 1, count_include_pad=False)


def unit(image_bhwc: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> (B, 3, H, W) in 0..1."""
    return image_bhwc.permute(0, 3, 1, 2).float() / 255


def change_inside(after: Tensor, before: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference inside the mask, one a picture: (B,)."""
    inside = (after - before).abs().mean(1, keepdim=True) * mask
    return inside.sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp(min=1)


def adams(networks: dict[str, nn.Module], schedule: Schedule) -> dict[str, Optimizer]:
    """One optimiser for the generator, the first network; one for both critics, twice as fast."""
    generator, *critics = networks.values()
    rate = schedule.learning_rate
    made: dict[str, Optimizer] = {
        "generator": Adam(generator.parameters(), lr=rate, betas=(0.0, 0.99)),
        "critics": Adam(
            [p for critic in critics for p in critic.parameters()], lr=2 * rate, betas=(0.0, 0.99)
        ),
    }
    for optimizer in made.values():
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return made


def only_learn(networks: dict[str, nn.Module], names: tuple[str, ...]) -> None:
    """Only the named networks take gradients."""
    for name, network in networks.items():
        network.requires_grad_(name in names)


def descend(optimizer: Optimizer, loss: Tensor, fabric: Fabric) -> None:
    """One step of an optimiser down a loss."""
    optimizer.zero_grad()
    fabric.backward(loss)
    optimizer.step()


def weighted(losses: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """The sum of what has a weight."""
    return torch.stack([weights[k] * v for k, v in losses.items() if weights[k]]).sum()


def stack(arrays: list[NDArray[np.uint8]] | list[NDArray[np.float32]]) -> Tensor:
    """Arrays of one shape -> one tensor with a batch axis in front."""
    return torch.from_numpy(np.stack(arrays))
