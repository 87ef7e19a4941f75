"""What generators are chosen by: validation masks and defects against generated ones."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.arrays import Mask, RgbImage
from models.steps.fusion import contrast, feather, fuse
from models.steps.sites import Site
from training.fidelity import features, measure_shape
from training.metrics import kid_like, ks_distance
from training.networks.generators import DefectGenerator, MaskGenerator
from training.sites import MASK_SCALES, MASK_SLACK, RealSite, SiteSource
from training.trainers.loop import Judgement
from training.trainers.sheets import tile

COUNT = 96
"""Squares that a network is judged on."""
BATCH = 16
EMPTY_PX = 8
"""A mask of fewer pixels is none."""
ENOUGH_DIVERSITY = 0.5
"""Masks of two noises that share no more than half of their pixels are as unlike as need be."""
SHAPES = ("log_area", "elongation", "solidity")
"""What `measure_shape` tells of a mask, in its order."""


class MaskJudge:
    """Shapes of generated masks on validation normals against real validation masks."""

    def __init__(self, source: SiteSource, *, seed: int) -> None:
        rng = np.random.default_rng(seed)
        labels = [source.draw_label(rng) for _ in range(COUNT)]
        self.reals = [
            source.draw_real(label, rng, crop_scale=MASK_SCALES, slack_share=MASK_SLACK)
            for label in labels
        ]
        self.normals = [source.draw_normal(label, rng) for label in labels]
        self.labels = torch.tensor(labels)

    def __call__(self, network: nn.Module) -> Judgement:
        """Score: minus the mean KS distance of the shapes, minus empty and half of illegal shares,
        plus half of the diversity that counts.
        """
        masks, others = self._imagine(network, seed=0), self._imagine(network, seed=1)
        legal = np.stack([site.object for site in self.normals])
        distances = self._compare_shapes(masks)
        figures = distances | {
            "empty": float(np.mean([mask.sum() < EMPTY_PX for mask in masks])),
            "outside": float(np.mean((masks & ~legal).any((1, 2)))),
            "diversity": float((masks ^ others).sum() / max((masks | others).sum(), 1)),
        }
        score = -float(np.mean(list(distances.values())))
        score -= figures["empty"] + 0.5 * figures["outside"]
        score += 0.5 * min(figures["diversity"], ENOUGH_DIVERSITY)
        return Judgement(score, figures, self._sheet(masks, others))

    def _compare_shapes(self, masks: NDArray[np.bool_]) -> dict[str, float]:
        """KS distances of the masks' shapes from the real ones; 1 where every mask is empty."""
        drawn = [measure_shape(mask) for mask in masks if mask.sum() >= EMPTY_PX]
        shapes = np.array(drawn).reshape(-1, len(SHAPES))
        truths = np.array([measure_shape(real.mask >= 0.5) for real in self.reals])
        return {
            f"ks_{name}": ks_distance(shapes[:, i], truths[:, i]) if drawn else 1.0
            for i, name in enumerate(SHAPES)
        }

    def _imagine(self, network: nn.Module, *, seed: int) -> NDArray[np.bool_]:
        assert isinstance(network, MaskGenerator)
        chance = torch.Generator().manual_seed(seed)
        masks = []
        for start in range(0, COUNT, BATCH):
            sites = self.normals[start : start + BATCH]
            given = (
                _images(sites),
                torch.from_numpy(np.stack([s.object for s in sites]).astype(np.uint8) * 255),
                self.labels[start : start + BATCH],
                _scales(sites),
                torch.randn(len(sites), network.noise_size, generator=chance),
                torch.randn(len(sites), *network.spatial_noise_chw, generator=chance),
            )
            soft = network(*_beside(network, given))
            masks.append(soft[:, 0].cpu().numpy() >= 0.5)
        return np.concatenate(masks)

    def _sheet(self, masks: NDArray[np.bool_], others: NDArray[np.bool_]) -> RgbImage:
        tiles = []
        for site, mask, other, real in zip(self.normals, masks, others, self.reals, strict=True):
            tiles += [site.image, *(_grey(m) for m in (mask, other, real.mask >= 0.5))]
        return tile(tiles[:96], columns=12)


class DefectJudge:
    """Generated defects on validation normals against real validation defects."""

    def __init__(
        self, source: SiteSource, least_contrasts: list[float], feather_px: float, *, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        labels = [source.draw_label(rng) for _ in range(COUNT)]
        self.reals = [source.draw_real(label, rng) for label in labels]
        self.normals = [source.draw_normal(label, rng) for label in labels]
        self.labels = torch.tensor(labels)
        self.least = [least_contrasts[label] for label in labels]
        self.feather_px = feather_px

    def __call__(self, network: nn.Module) -> Judgement:
        """Score: the visible share, minus the KID-like distance as a share of the normals' own."""
        painted = self._paint(network, seed=0)
        others = self._paint(network, seed=1)
        masks = [r.mask >= 0.5 for r in self.reals]
        changes = [
            contrast(site.image, image, mask)
            for site, image, mask in zip(self.normals, painted, masks, strict=True)
        ]
        real_features = features([r.site.image for r in self.reals])
        half = COUNT // 2
        figures = {
            "kid": kid_like(features(painted), real_features),
            "kid_normals": kid_like(features([s.image for s in self.normals]), real_features),
            "kid_floor": kid_like(real_features[:half], real_features[half:]),
            "visible": float(np.mean(np.array(changes) >= np.array(self.least))),
            "diversity": float(
                np.mean([contrast(a, b, m) for a, b, m in zip(painted, others, masks, strict=True)])
            ),
        }
        score = -figures["kid"] / max(figures["kid_normals"], 1e-6) + figures["visible"]
        return Judgement(score, figures, self._sheet(painted, masks))

    def _paint(self, network: nn.Module, *, seed: int) -> list[RgbImage]:
        assert isinstance(network, DefectGenerator)
        chance = torch.Generator().manual_seed(seed)
        painted: list[RgbImage] = []
        for start in range(0, COUNT, BATCH):
            sites, reals = self.normals[start : start + BATCH], self.reals[start : start + BATCH]
            given = (
                _images(sites),
                torch.from_numpy(np.stack([np.rint(r.mask * 255) for r in reals]).astype(np.uint8)),
                self.labels[start : start + BATCH],
                _scales(sites),
                torch.randn(len(sites), network.noise_size, generator=chance),
            )
            foreground, alpha = (part.cpu() for part in network(*_beside(network, given)))
            painted += [
                self._fuse(site, real, front, share)
                for site, real, front, share in zip(sites, reals, foreground, alpha, strict=True)
            ]
        return painted

    def _fuse(self, site: Site, real: RealSite, foreground: Tensor, alpha: Tensor) -> RgbImage:
        mask = real.mask >= 0.5
        share = alpha[0].numpy() * feather(mask, self.feather_px)
        fused = fuse(site.image, foreground.permute(1, 2, 0).numpy(), share, mask)
        return np.asarray(fused, np.uint8)

    def _sheet(self, painted: list[RgbImage], masks: list[Mask]) -> RgbImage:
        tiles = []
        for site, mask, image, real in zip(self.normals, masks, painted, self.reals, strict=True):
            tiles += [site.image, _grey(mask), image, real.site.image]
        return tile(tiles[:96], columns=12)


def _beside(network: nn.Module, given: tuple[Tensor, ...]) -> list[Tensor]:
    """The inputs, drawn on the CPU on any machine, on the network's device."""
    device = next(network.parameters()).device
    return [one.to(device) for one in given]


def _images(sites: list[Site]) -> Tensor:
    return torch.from_numpy(np.stack([s.image for s in sites]))


def _scales(sites: list[Site]) -> Tensor:
    return torch.tensor([float(s.scale) for s in sites])


def _grey(mask: Mask) -> RgbImage:
    return np.repeat((mask.astype(np.uint8) * 255)[..., None], 3, axis=2)
