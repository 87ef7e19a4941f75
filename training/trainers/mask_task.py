"""Stage 1 of synthesis against its dual-level critics.

Source: patent "A defect image generation method", claims 4 and 5.
Shape suffixes: b batch, c channels, h height, w width.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from models.steps.sites import as_bytes
from training.losses import (
    binary_mask_loss,
    boundary_aware_loss,
    critic_hinge_loss,
    generator_hinge_loss,
    log_area_loss,
    mode_seeking_loss,
)
from training.networks.books import CODE_NOISE
from training.networks.critics import Critic
from training.networks.focus import rim_of
from training.networks.generators import MaskGenerator
from training.recipes import MaskGeneratorRecipe
from training.sites import (
    MASK_SCALES,
    MASK_SLACK,
    RealSite,
    SiteSource,
    deform,
    draw_ground,
    mirror,
)
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
from training.trainers.pages import choose_pages, scales_of, shape_pages

Noise = tuple[Tensor, Tensor]
"""What a mask generator is given: noise (B, CODE_NOISE) and spatial noise (B, 1, S/2, S/2)."""


class MaskTask:
    """Stage 1: masks that no critic can tell from real ones, at region and at image level.

    The generator's book is filled with the source's shapes. Critics see real and generated masks
    on the same mix of squares without a defect, half of real defects' own surroundings and half of
    normal pictures, so that no critic can win by the background.
    """

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
        if network.book is not None:
            pages = choose_pages(source, recipe.pages)
            shapes, labels = shape_pages(source, pages)
            network.book.fill(shapes, labels, scales_p=scales_of(source, pages))
        self.networks: dict[str, nn.Module] = {
            self.name: network,
            "image_critic": Critic(4, source.labels, width=recipe.width),
            "region_critic": Critic(1, source.labels, width=recipe.width),
        }
        self.optimizers = adams(self.networks, recipe.schedule)

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        """Real masks with squares for them, and the squares that masks are imagined for."""
        labels = [self.source.draw_label(rng) for _ in range(self.recipe.schedule.batch)]
        reals = [self._draw_mask(label, rng) for label in labels]
        others = [self._draw_mask(label, rng) for label in labels]
        return {
            "label": torch.tensor(labels),
            "real_mask": stack([real.mask for real in reals])[:, None],
            **self._draw_grounds("real_", reals, rng),
            **self._draw_grounds("", others, rng),
        }

    def take_step(self, batch: Batch, fabric: Fabric) -> dict[str, Tensor]:
        """One step of the critics, one of the generator."""
        noise, other = self._draw_noise(batch), self._draw_noise(batch)
        mask = self._imagine(batch, noise)
        losses = self._teach_critics(batch, mask.detach(), fabric)
        losses |= self._teach_generator(batch, mask, (noise, other), fabric)
        return {name: value.detach() for name, value in losses.items()}

    def judge(self, network: nn.Module) -> Judgement:
        """Masks on normal squares against real masks."""
        return self.judge_masks(network)

    def _draw_mask(self, label: int, rng: np.random.Generator) -> RealSite:
        """A real mask with a little room around it, mirrored and deformed by chance."""
        drawn = self.source.draw_real(label, rng, crop_scale=MASK_SCALES, slack_share=MASK_SLACK)
        return deform(mirror(drawn, rng), rng)

    def _draw_grounds(self, kind: str, reals: list[RealSite], rng: np.random.Generator) -> Batch:
        """Squares without a defect, every other one of a normal picture."""
        sites = [
            draw_ground(self.source, real, rng, elsewhere=bool(index % 2))
            for index, real in enumerate(reals)
        ]
        return {
            f"{kind}image": stack([site.image for site in sites]),
            f"{kind}object": stack([as_bytes(site.object) for site in sites]),
            f"{kind}distance": stack([_distance_outside(site.object) for site in sites])[:, None],
            f"{kind}scale": torch.tensor([float(real.site.scale) for real in reals]),
        }

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
        self, batch: Batch, mask: Tensor, noises: tuple[Noise, Noise], fabric: Fabric
    ) -> dict[str, Tensor]:
        """What both critics, the object's boundary and the real areas say of the masks."""
        only_learn(self.networks, (self.name,))
        image, shown = shift_and_relight(batch["image"], mask)
        legal = batch["object"][:, None].float() / 255
        losses = {
            "image": generator_hinge_loss(self._image_score(image, shown, batch)),
            "region": generator_hinge_loss(self.networks["region_critic"](shown, batch["label"])),
            "boundary": boundary_aware_loss(mask, legal, batch["distance"]),
            "log_area": log_area_loss(mask, batch["real_mask"]),
            "binary": binary_mask_loss(mask),
        }
        if self.recipe.mode_seeking_weight:
            losses["mode_seeking"] = self._mode_seeking(batch, mask, noises)
        weights = {name: getattr(self.recipe, f"{name}_weight") for name in losses}
        descend(self.optimizers["generator"], weighted(losses, weights), fabric)
        return losses

    def _mode_seeking(self, batch: Batch, mask: Tensor, noises: tuple[Noise, Noise]) -> Tensor:
        """How little another noise changes the masks of the same squares."""
        with torch.no_grad():
            other = self._imagine(batch, noises[1])
        gap = (noises[0][0] - noises[1][0]).abs().mean(1)
        return mode_seeking_loss(mask, other, gap)

    def _imagine(self, batch: Batch, noise: Noise) -> Tensor:
        """The generator's masks for a batch's squares: (B, 1, S, S)."""
        generator = self.networks[self.name].train()
        given = (batch["image"], batch["object"], batch["label"], batch["scale"])
        mask: Tensor = generator(*given, *noise)
        return mask

    def _image_score(self, image_bchw: Tensor, mask_bchw: Tensor, batch: Batch) -> Tensor:
        """The picture with the defect cut out, and the mask: inside, real pixels would tell."""
        cut_out = image_bchw * (1 - rim_of(mask_bchw))
        masked = torch.cat([cut_out, mask_bchw * 2 - 1], dim=1)
        scores: Tensor = self.networks["image_critic"](masked, batch["label"])
        return scores

    def _draw_noise(self, batch: Batch) -> Noise:
        """Drawn on the CPU on any machine."""
        size, device = len(batch["label"]), batch["label"].device
        flat = torch.randn(size, CODE_NOISE)
        return flat.to(device), torch.randn(size, *self.spatial_noise_chw).to(device)


def _distance_outside(legal: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Pixels to the nearest legal one; the square's side where it has none."""
    if not legal.any():
        return np.full(legal.shape, max(legal.shape), np.float32)
    return np.asarray(cv2.distanceTransform((~legal).astype(np.uint8), cv2.DIST_L2, 3), np.float32)
