"""Stage 2 of synthesis against its dual-level critics.

Source: patent "A defect image generation method", claim 6.
Shape suffixes: b batch, c channels, h height, w width.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from models.arrays import Mask, RgbImage
from models.steps.fusion import feather
from training.losses import (
    critic_hinge_loss,
    generator_hinge_loss,
    mode_seeking_loss,
    texture_loss,
    visibility_loss,
)
from training.networks.books import CODE_NOISE
from training.networks.critics import Critic
from training.networks.encoders import MEAN, SCALE, lite0_encoder
from training.networks.focus import DARK, surroundings
from training.networks.generators import DefectGenerator, defect_noise_size
from training.recipes import DefectGeneratorRecipe
from training.sites import RealSite, SiteSource, deform, draw_ground, mirror
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
from training.trainers.fillings import texture_pages
from training.trainers.judges import DefectJudge
from training.trainers.loop import Batch, Judgement
from training.trainers.pages import Page, choose_pages

REGION_PX = 64
"""Side at which the region critic is shown a defect, whatever its own."""
REGION_RIM_PX = 2
"""What the region critic is shown around a mask's box."""
LIGHT_SPREAD = 0.15
"""Standard deviation of the log gain that squares are made brighter or darker by."""
NOISE_PER_CHANGE = 10.0
"""Mode seeking asks for a tenth as much change of pixels as of noise."""


class DefectTask:
    """Stage 2: defects that no critic can tell from real ones, at region and at image level.

    The generator's book is filled with the source's defects. Fakes are painted on squares without
    a defect, half of real defects' own surroundings and half of normal pictures. Critics see real
    defects transplanted onto the same mix of squares, relit by the ratio of local means, so that no
    critic can win by the background. The book opened at a real defect's own page must rebuild it.
    """

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
        self.pages = choose_pages(source, recipe.pages)
        if network.book is not None:
            fillings, labels, outlines = texture_pages(source, self.pages)
            network.book.fill(fillings, labels, outlines_phw=outlines)
        self.known: dict[Page, int] = {}
        for number, page in enumerate(self.pages):
            self.known.setdefault(page, number)
        self.encoder = lite0_encoder(out_indices=(0, 1, 2)).eval().requires_grad_(False)

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        """Real defects with squares to lie on, and squares and masks to paint defects for.

        The real ones are as their pages have them; the masks for the others are deformed.
        """
        labels = [self.source.draw_label(rng) for _ in range(self.recipe.schedule.batch)]
        pages, reals = self._draw_reals(labels, rng)
        batch = {
            "label": torch.tensor(labels),
            "real_page": torch.tensor(pages),
            **self._show("real_", reals, rng),
        }
        _, others = self._draw_reals(labels, rng)
        others = [deform(mirror(other, rng), rng) for other in others]
        return batch | self._show("", others, rng)

    def take_step(self, batch: Batch, fabric: Fabric) -> dict[str, Tensor]:
        """One step of the critics, one of the generator."""
        with torch.no_grad():
            real = _transplant(batch)
        noise = self._draw_noise(batch)
        fake = self._paint(batch, "", noise)
        losses = self._teach_critics(batch, real, fake.detach(), fabric)
        losses |= self._teach_generator(batch, real, fake, noise, fabric)
        return {name: value.detach() for name, value in losses.items()}

    def judge(self, network: nn.Module) -> Judgement:
        """Defects on normal squares against real defects."""
        return self.judge_defects(network)

    def _draw_reals(
        self, labels: list[int], rng: np.random.Generator
    ) -> tuple[list[int], list[RealSite]]:
        """A defect of the book for each label, and the number of its page."""
        choices = [[page for page in self.known if page[0] == label] for label in labels]
        chosen = [pages[rng.integers(len(pages))] for pages in choices]
        reals = [self.source.draw_real(label, rng, flaw=flaw) for label, flaw in chosen]
        return [self.known[page] for page in chosen], reals

    def _show(self, kind: str, reals: list[RealSite], rng: np.random.Generator) -> Batch:
        """Defects in their own squares (`whole`), and the squares to paint on (`image`)."""
        gains = np.exp(rng.normal(0.0, LIGHT_SPREAD, len(reals)))
        grounds = [
            draw_ground(self.source, real, rng, elsewhere=bool(index % 2)).image
            for index, real in enumerate(reals)
        ]
        return {
            f"{kind}image": stack(_relight(grounds, gains)),
            f"{kind}whole": stack(_relight([real.site.image for real in reals], gains)),
            f"{kind}scale": torch.tensor([float(real.site.scale) for real in reals]),
            f"{kind}box": torch.tensor([_region_of(real.mask >= 0.5) for real in reals]),
            **self._forms(kind, reals),
        }

    def _forms(self, kind: str, reals: list[RealSite]) -> Batch:
        """A batch of masks in the three forms that are needed."""
        masks = np.stack([real.mask for real in reals])
        feathers = [feather(mask >= 0.5, self.recipe.feather_px) for mask in masks]
        return {
            f"{kind}mask": torch.from_numpy((masks >= 0.5).astype(np.float32))[:, None],
            f"{kind}mask_u8": torch.from_numpy(np.rint(masks * 255).astype(np.uint8)),
            f"{kind}feather": stack(feathers)[:, None],
        }

    def _teach_critics(
        self, batch: Batch, real: Tensor, fake: Tensor, fabric: Fabric
    ) -> dict[str, Tensor]:
        """Both levels: transplanted real defects against painted ones."""
        only_learn(self.networks, ("image_critic", "region_critic"))
        losses = {
            name: critic_hinge_loss(
                self._score(name, real, batch, "real_"), self._score(name, fake, batch, "")
            )
            for name in ("image_critic", "region_critic")
        }
        descend(self.optimizers["critics"], sum(losses.values(), torch.zeros(())), fabric)
        return losses

    def _teach_generator(
        self, batch: Batch, real: Tensor, fake: Tensor, noise: Tensor, fabric: Fabric
    ) -> dict[str, Tensor]:
        """What both critics, the real defects and the least contrast say of the painted ones."""
        only_learn(self.networks, (self.name,))
        rebuilt, mask = self._rebuild(batch), batch["real_mask"]
        losses = {
            "image": generator_hinge_loss(self._score("image_critic", fake, batch, "")),
            "region": generator_hinge_loss(self._score("region_critic", fake, batch, "")),
            "reconstruction": change_inside(
                *(F.avg_pool2d(x, 4) for x in (rebuilt, real, mask))
            ).mean(),
            "texture": texture_loss(self._features(rebuilt), self._features(real), mask),
            "visibility": visibility_loss(
                change_inside(fake, unit(batch["image"]), batch["mask"]),
                self.least.to(fake.device)[batch["label"]],
            ),
        }
        if self.recipe.mode_seeking_weight:
            losses["mode_seeking"] = self._mode_seeking(batch, fake, noise)
        weights = {name: getattr(self.recipe, f"{name}_weight") for name in losses}
        descend(self.optimizers["generator"], weighted(losses, weights), fabric)
        return losses

    def _rebuild(self, batch: Batch) -> Tensor:
        """The real defects painted from their own pages, unwarped; only the grain is drawn."""
        noise = self._draw_noise(batch)
        noise[:, : CODE_NOISE + 1] = 0
        share = F.one_hot(batch["real_page"], 2 * len(self.pages)).float()
        return self._paint(batch, "real_", noise, share)

    def _mode_seeking(self, batch: Batch, fake: Tensor, noise: Tensor) -> Tensor:
        """How little another noise changes the defects painted on the same squares."""
        other = self._draw_noise(batch)
        with torch.no_grad():
            second = self._paint(batch, "", other)
        gap = (noise - other).abs().mean(1) / NOISE_PER_CHANGE
        return mode_seeking_loss(fake, second, gap)

    def _features(self, unit_bchw: Tensor) -> list[Tensor]:
        """A picture, and what a fixed network sees in it at strides 2, 4 and 8."""
        seen: list[Tensor] = self.encoder.to(unit_bchw.device)((unit_bchw * 255 - MEAN) / SCALE)
        return [unit_bchw * 2 - 1, *seen]

    def _paint(self, batch: Batch, kind: str, noise: Tensor, share: Tensor | None = None) -> Tensor:
        """The generator's defect fused into a square, in 0..1."""
        generator, image = self.networks[self.name].train(), batch[f"{kind}image"]
        foreground, alpha = generator(
            image, batch[f"{kind}mask_u8"], batch["label"], batch[f"{kind}scale"], noise, share
        )
        background, cover = unit(image), alpha * batch[f"{kind}feather"]
        painted: Tensor = background * (1 - cover) + foreground * cover
        return painted

    def _score(self, name: str, image: Tensor, batch: Batch, kind: str) -> Tensor:
        """Image level: picture and mask. Region level: the defect alone, filling its square."""
        mask = batch[f"{kind}mask"]
        if name == "region_critic":
            alone = _fill_square(torch.cat([image * mask, mask], dim=1), batch[f"{kind}box"])
            image, mask = alone[:, :3], alone[:, 3:]
        image, mask = shift_and_relight(image, mask)
        seen = torch.cat([image * 2 - 1, mask * 2 - 1], dim=1)
        scores: Tensor = self.networks[name](seen, batch["label"])
        return scores

    def _draw_noise(self, batch: Batch) -> Tensor:
        """Drawn on the CPU on any machine."""
        size = len(batch["label"]), defect_noise_size(self.recipe.side_px)
        return torch.randn(size).to(batch["label"].device)


def _relight(images: list[RgbImage], gains: NDArray[np.float64]) -> list[RgbImage]:
    """Each picture brighter or darker by its gain."""
    return [
        np.clip(image * gain, 0, 255).astype(np.uint8)
        for image, gain in zip(images, gains, strict=True)
    ]


def _region_of(mask: Mask) -> tuple[float, ...]:
    """Left, top, right and bottom of a mask's box and its rim, in -1..1; all where it is empty."""
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return (-1.0, -1.0, 1.0, 1.0)
    first = [int(places.min()) - REGION_RIM_PX for places in (columns, rows)]
    last = [int(places.max()) + 1 + REGION_RIM_PX for places in (columns, rows)]
    return tuple(2 * edge / mask.shape[0] - 1 for edge in (*first, *last))


def _transplant(batch: Batch) -> Tensor:
    """Real defects on their squares, in the light of that square: (B, 3, S, S) in 0..1."""
    ground, whole, mask = unit(batch["real_image"]), unit(batch["real_whole"]), batch["real_mask"]
    here, there = surroundings(ground, mask), surroundings(whole, mask)
    moved = ((whole + DARK) * (here + DARK) / (there + DARK) - DARK).clamp(0, 1)
    cover = batch["real_feather"]
    return ground * (1 - cover) + moved * cover


def _fill_square(x_bchw: Tensor, box_b4: Tensor) -> Tensor:
    """What lies in each box, as large as a square of REGION_PX can show it in shape."""
    left, top, right, bottom = box_b4.unbind(1)
    zero = torch.zeros_like(left)
    half = torch.maximum(right - left, bottom - top) / 2
    across = torch.stack([half, zero, (left + right) / 2], 1)
    down = torch.stack([zero, half, (top + bottom) / 2], 1)
    size = [x_bchw.shape[0], x_bchw.shape[1], REGION_PX, REGION_PX]
    matrix = torch.stack([across, down], 1).to(x_bchw.dtype)
    grid = F.affine_grid(matrix, size, align_corners=False)
    return F.grid_sample(x_bchw, grid, align_corners=False)
