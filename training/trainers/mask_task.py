"""Stage 1 of synthesis against its dual-level critics.

Source: patent "A defect image generation method", claims 4 and 5.
Shape suffixes: b batch, c channels, h height, w width.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from training.losses import (
    binary_mask_loss,
    boundary_aware_loss,
    critic_hinge_loss,
    generator_hinge_loss,
    log_area_loss,
    mode_seeking_loss,
)
from training.networks.critics import Critic
from training.networks.generators import MaskGenerator
from training.recipes import MaskGeneratorRecipe
from training.sites import SiteSource
from training.trainers.adversarial import (
    adams,
    descend,
    only_learn,
    shift_and_relight,
    soften,
    stack,
    weighted,
)
from training.trainers.judges import MaskJudge
from training.trainers.loop import Batch, Judgement


class MaskTask:
    """Stage 1: masks that no critic can tell from real ones, at region and at image level."""

    name = product = "mask_generator"

    def __init__(
        self,
        network: MaskGenerator,
        source: SiteSource,
        recipe: MaskGeneratorRecipe,
        judge: MaskJudge,
    ) -> None:
        self.source, self.recipe, self.judge_masks = source, recipe, judge
        self.spatial_noise_chw = network.spatial_noise_chw
        self.networks: dict[str, nn.Module] = {
            self.name: network,
            "image_critic": Critic(4, source.labels, width=recipe.width),
            "region_critic": Critic(1, source.labels, width=recipe.width),
        }
        self.optimizers = adams(self.networks, recipe.schedule)

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        """Real defects with their masks, and normal squares of the same labels."""
        labels = [self.source.draw_label(rng) for _ in range(self.recipe.schedule.batch)]
        reals = [self.source.draw_real(label, rng) for label in labels]
        normals = [self.source.draw_normal(label, rng) for label in labels]
        legal = np.stack([site.object for site in normals])
        return {
            "label": torch.tensor(labels),
            "real_image": stack([r.site.image for r in reals]),
            "real_mask": stack([r.mask for r in reals])[:, None],
            "image": stack([site.image for site in normals]),
            "object": stack(list(legal.astype(np.uint8) * 255)),
            "distance": stack([_distance_outside(mask) for mask in legal])[:, None],
            "scale": torch.tensor([float(site.scale) for site in normals]),
        }

    def take_step(self, batch: Batch, fabric: Fabric) -> dict[str, Tensor]:
        """One step of the critics, one of the generator."""
        generator = self.networks[self.name].train()
        noises = [self._draw_noise(batch) for _ in range(2)]
        given = (batch["image"], batch["object"], batch["label"], batch["scale"])
        with torch.no_grad():
            second = generator(*given, *noises[1])
        first = generator(*given, *noises[0])
        losses = self._teach_critics(batch, first.detach(), fabric)
        losses |= self._teach_generator(batch, first, second, noises, fabric)
        return {name: value.detach() for name, value in losses.items()}

    def judge(self, network: nn.Module) -> Judgement:
        """Masks on validation normals against real validation masks."""
        return self.judge_masks(network)

    def _teach_critics(self, batch: Batch, fake: Tensor, fabric: Fabric) -> dict[str, Tensor]:
        """Region level: real against generated mask. Image level: each on its own picture."""
        only_learn(self.networks, ("image_critic", "region_critic"))
        real_image, real_mask = shift_and_relight(batch["real_image"], soften(batch["real_mask"]))
        fake_image, fake_mask = shift_and_relight(batch["image"], fake)
        losses = {
            "image_critic": critic_hinge_loss(
                self._image_score(real_image, real_mask, batch),
                self._image_score(fake_image, fake_mask, batch),
            ),
            "region_critic": critic_hinge_loss(
                self.networks["region_critic"](real_mask, batch["label"]),
                self.networks["region_critic"](fake_mask, batch["label"]),
            ),
        }
        descend(self.optimizers["critics"], sum(losses.values(), torch.zeros(())), fabric)
        return losses

    def _teach_generator(
        self,
        batch: Batch,
        first: Tensor,
        second: Tensor,
        noises: list[tuple[Tensor, Tensor]],
        fabric: Fabric,
    ) -> dict[str, Tensor]:
        only_learn(self.networks, (self.name,))
        recipe = self.recipe
        image, mask = shift_and_relight(batch["image"], first)
        gap = (noises[0][0] - noises[1][0]).abs().mean(1)
        legal = batch["object"][:, None].float() / 255
        losses = {
            "image": generator_hinge_loss(self._image_score(image, mask, batch)),
            "region": generator_hinge_loss(self.networks["region_critic"](mask, batch["label"])),
            "boundary": boundary_aware_loss(first, legal, batch["distance"]),
            "log_area": log_area_loss(first, batch["real_mask"]),
            "binary": binary_mask_loss(first),
            "mode_seeking": mode_seeking_loss(first, second, gap),
        }
        weights = {
            "image": recipe.image_weight,
            "region": recipe.region_weight,
            "boundary": recipe.boundary_weight,
            "log_area": recipe.log_area_weight,
            "binary": recipe.binary_weight,
            "mode_seeking": recipe.mode_seeking_weight,
        }
        descend(self.optimizers["generator"], weighted(losses, weights), fabric)
        return losses

    def _image_score(self, image_bchw: Tensor, mask_bchw: Tensor, batch: Batch) -> Tensor:
        """The picture with the defect cut out, and the mask: inside, real pixels would tell."""
        around = F.max_pool2d(mask_bchw, 5, 1, 2)
        masked = torch.cat([image_bchw * (1 - around), mask_bchw * 2 - 1], dim=1)
        scores: Tensor = self.networks["image_critic"](masked, batch["label"])
        return scores

    def _draw_noise(self, batch: Batch) -> tuple[Tensor, Tensor]:
        size, device = len(batch["label"]), batch["label"].device
        flat = torch.randn(size, self.recipe.noise_size)
        return flat.to(device), torch.randn(size, *self.spatial_noise_chw).to(device)


def _distance_outside(legal: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Pixels to the nearest legal one; the square's side where it has none."""
    if not legal.any():
        return np.full(legal.shape, max(legal.shape), np.float32)
    return np.asarray(cv2.distanceTransform((~legal).astype(np.uint8), cv2.DIST_L2, 3), np.float32)
