"""Stage 2 of synthesis against its dual-level critics.

Source: patent "A defect image generation method", claim 6.
Shape suffixes: b batch, c channels, h height, w width.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from models.steps.fusion import feather
from training.losses import (
    critic_hinge_loss,
    generator_hinge_loss,
    mode_seeking_loss,
    visibility_loss,
)
from training.networks.critics import Critic
from training.networks.generators import DefectGenerator
from training.recipes import DefectGeneratorRecipe
from training.sites import RealSite, SiteSource, without_defect
from training.trainers.adversarial import (
    adams,
    change_inside,
    descend,
    only_learn,
    shift_and_relight,
    stack,
    unit,
    weighted,
)
from training.trainers.judges import DefectJudge
from training.trainers.loop import Batch, Judgement

NOISE_PER_CHANGE = 10.0
"""The noise gap over this is the change that a picture in 0..1 is asked for: a defect alters a part
of its square, by some grey levels, and never by as much as the noise. Set by hand.
"""


class DefectTask:
    """Stage 2: defects that no critic can tell from real ones, at region and at image level."""

    name = product = "defect_generator"

    def __init__(
        self,
        network: DefectGenerator,
        source: SiteSource,
        recipe: DefectGeneratorRecipe,
        judge: DefectJudge,
        least_contrasts: list[float],
    ) -> None:
        self.source, self.recipe, self.judge_defects = source, recipe, judge
        self.least = torch.tensor(least_contrasts) / 255
        self.networks: dict[str, nn.Module] = {
            self.name: network,
            "image_critic": Critic(4, source.labels, width=recipe.width),
            "region_critic": Critic(4, source.labels, width=recipe.width),
        }
        self.optimizers = adams(self.networks, recipe.schedule)

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        """Real defects, the same squares without them, and normal squares for their masks."""
        labels = [self.source.draw_label(rng) for _ in range(self.recipe.schedule.batch)]
        reals = [self.source.draw_real(label, rng) for label in labels]
        asked = [self.source.draw_real(label, rng) for label in labels]
        normals = [self.source.draw_normal(label, rng) for label in labels]
        return {
            "label": torch.tensor(labels),
            "real_image": stack([r.site.image for r in reals]),
            "pseudo_normal": stack([without_defect(r) for r in reals]),
            "image": stack([site.image for site in normals]),
            "scale": torch.tensor([float(site.scale) for site in normals]),
            "real_scale": torch.tensor([float(r.site.scale) for r in reals]),
            **self._masks("real_", reals),
            **self._masks("", asked),
        }

    def take_step(self, batch: Batch, fabric: Fabric) -> dict[str, Tensor]:
        """One step of the critics, one of the generator."""
        noises = [self._draw_noise(batch) for _ in range(2)]
        with torch.no_grad():
            second = self._paint(batch, "image", "", noises[1])
        first = self._paint(batch, "image", "", noises[0])
        losses = self._teach_critics(batch, first.detach(), fabric)
        losses |= self._teach_generator(batch, first, second, noises, fabric)
        return {name: value.detach() for name, value in losses.items()}

    def judge(self, network: nn.Module) -> Judgement:
        """Defects on validation normals against real validation defects."""
        return self.judge_defects(network)

    def _teach_critics(self, batch: Batch, fake: Tensor, fabric: Fabric) -> dict[str, Tensor]:
        only_learn(self.networks, ("image_critic", "region_critic"))
        real, mask_of_real = shift_and_relight(batch["real_image"], batch["real_mask"])
        fake, mask_of_fake = shift_and_relight(fake, batch["mask"])
        pairs = ((real, mask_of_real), (fake, mask_of_fake))
        losses = {
            name: critic_hinge_loss(*(self._score(name, i, m, batch) for i, m in pairs))
            for name in ("image_critic", "region_critic")
        }
        descend(self.optimizers["critics"], sum(losses.values(), torch.zeros(())), fabric)
        return losses

    def _teach_generator(
        self, batch: Batch, first: Tensor, second: Tensor, noises: list[Tensor], fabric: Fabric
    ) -> dict[str, Tensor]:
        only_learn(self.networks, (self.name,))
        recipe = self.recipe
        shown, mask = shift_and_relight(first, batch["mask"])
        rebuilt = self._paint(batch, "pseudo_normal", "real_", self._draw_noise(batch))
        losses = {
            "image": generator_hinge_loss(self._score("image_critic", shown, mask, batch)),
            "region": generator_hinge_loss(self._score("region_critic", shown, mask, batch)),
            "reconstruction": change_inside(
                rebuilt, unit(batch["real_image"]), batch["real_mask"]
            ).mean(),
            "visibility": visibility_loss(
                change_inside(first, unit(batch["image"]), batch["mask"]),
                self.least.to(first.device)[batch["label"]],
            ),
            "mode_seeking": mode_seeking_loss(
                first, second, (noises[0] - noises[1]).abs().mean(1) / NOISE_PER_CHANGE
            ),
        }
        weights = {
            "image": recipe.image_weight,
            "region": recipe.region_weight,
            "reconstruction": recipe.reconstruction_weight,
            "visibility": recipe.visibility_weight,
            "mode_seeking": recipe.mode_seeking_weight,
        }
        descend(self.optimizers["generator"], weighted(losses, weights), fabric)
        return losses

    def _paint(self, batch: Batch, image: str, kind: str, noise: Tensor) -> Tensor:
        """The generator's defect fused into a square, in 0..1."""
        generator = self.networks[self.name].train()
        foreground, alpha = generator(
            batch[image], batch[f"{kind}mask_u8"], batch["label"], batch[f"{kind}scale"], noise
        )
        background = unit(batch[image])
        share = alpha * batch[f"{kind}feather"]
        painted: Tensor = background * (1 - share) + foreground * share
        return painted

    def _score(self, name: str, image_bchw: Tensor, mask_bchw: Tensor, batch: Batch) -> Tensor:
        """Image level: picture and mask. Region level: the defect alone, at half the side."""
        if name == "region_critic":
            image_bchw, mask_bchw = (
                F.avg_pool2d(x, 2) for x in (image_bchw * mask_bchw, mask_bchw)
            )
        seen = torch.cat([image_bchw * 2 - 1, mask_bchw * 2 - 1], dim=1)
        scores: Tensor = self.networks[name](seen, batch["label"])
        return scores

    def _masks(self, kind: str, reals: list[RealSite]) -> Batch:
        """A batch of masks in the three forms that are needed."""
        masks = np.stack([r.mask for r in reals])
        feathers = [feather(m >= 0.5, self.recipe.feather_px) for m in masks]
        return {
            f"{kind}mask": torch.from_numpy((masks >= 0.5).astype(np.float32))[:, None],
            f"{kind}mask_u8": torch.from_numpy(np.rint(masks * 255).astype(np.uint8)),
            f"{kind}feather": stack(feathers)[:, None],
        }

    def _draw_noise(self, batch: Batch) -> Tensor:
        size = len(batch["label"]), self.recipe.noise_size
        return torch.randn(size).to(batch["label"].device)
