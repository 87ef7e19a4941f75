"""The arms of the experiment: what is added to the real pictures before a segmenter learns."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from models.errors import ParameterInvalid
from models.steps.outlines import place_region
from models.steps.pictures import Picture
from models.synthesis import SynthesisRequest, Synthesizer, Synthetic, synthesize
from training.data import Dataset, Record
from training.procedural import ARMS, LEAST_AREA_PX
from training.recipes import Recipe
from training.trainers.stages import GENERATORS, site_sources

PROCEDURAL = tuple(ARMS)
OURS = "ours"
ARM_NAMES = ("real", "classic", *PROCEDURAL, OURS)
MOST_DRAWS = 20
"""Draws for each synthetic picture that is wanted, before giving up."""
TELLERS = (
    "models/synthesis.py",
    "models/attempts.py",
    "models/steps/*.py",
    "training/networks/*.py",
    "training/trainers/arms.py",
)
"""The code that our pairs are drawn by."""

Draw = Callable[[np.random.Generator], Record]


@dataclass(frozen=True)
class Arm:
    """What is added to the real pictures: classic augmentation, and drawn synthetic pictures.

    origin: what the drawing depends on beside recipe and pictures, such as weights; a result of
    another origin is measured anew.
    """

    is_augmented: bool = True
    draw: Draw | None = None
    origin: str = ""


def plain_arms(data: Dataset, recipe: Recipe) -> dict[str, Arm]:
    """Real pictures alone, classic augmentation, and this with each of the procedural arms."""
    source = site_sources(recipe, data, recipe.mask_generator.side_px)["train"]
    arms = {"real": Arm(is_augmented=False), "classic": Arm()}
    return arms | {name: Arm(draw=partial(draw, source)) for name, draw in ARMS.items()}


def generator_arm(synthesizer: Synthesizer, data: Dataset, *, origin: str = "") -> Arm:
    """Classic augmentation and story 2 on normal training pictures, see `draw_like_real`."""

    def draw(rng: np.random.Generator) -> Record:
        normal, sample = draw_like_real(data, synthesizer, rng)
        return annotate(normal, sample, data.labels)

    return Arm(draw=draw, origin=origin)


def draw_like_real(
    data: Dataset, synthesizer: Synthesizer, rng: np.random.Generator
) -> tuple[Record, Synthetic]:
    """A normal training picture, and a sample of it with as many defects as a real one has.

    They are of that one's label where it has just one. Errors: ParameterInvalid.
    """
    normal = data.train_normals[rng.integers(len(data.train_normals))]
    example = data.train_defects[rng.integers(len(data.train_defects))]
    kinds = {flaw.label for flaw in example.flaws}
    request = SynthesisRequest(
        seed=int(rng.integers(2**32)),
        defects=sum(f.region.area_px >= LEAST_AREA_PX for f in example.flaws) or 1,
        label=data.labels[kinds.pop() - 1] if len(kinds) == 1 else None,
    )
    (sample,) = synthesize(Picture(normal.image), request, synthesizer)
    return normal, sample


def annotate(normal: Record, sample: Synthetic, labels: tuple[str, ...]) -> Record:
    """A sample as an annotated picture of its normal's group."""
    hw = (normal.image.shape[0], normal.image.shape[1])
    truth = np.zeros(hw, np.uint8)
    for defect in sample.defects:
        truth[place_region(defect.region, (0, 0), hw)] = 1 + labels.index(defect.label)
    image = np.asarray(sample.pixels, np.uint8)
    return Record(f"{normal.name}#{sample.seed}", normal.group, image, truth)


def digest_generators(run: Path, synthesizer: Synthesizer) -> str:
    """All that pairs of a run's own generators depend on: params, weights and code. sha256 in hex.

    Comments and layout of the code change nothing. Errors: FileNotFoundError without weights.
    """
    digest = hashlib.sha256(synthesizer.params.model_dump_json().encode())
    for stage in GENERATORS:
        digest.update((run / f"{stage}.pt").read_bytes())
    for pattern in TELLERS:
        for file in sorted(Path(__file__).parents[2].glob(pattern)):
            digest.update(ast.dump(ast.parse(file.read_text(encoding="utf-8"))).encode())
    return digest.hexdigest()


def draw_pairs(draw: Draw, count: int, *, seed: int, margin_px: int) -> list[Record]:
    """Synthetic pictures, cut to their defects' surroundings; a draw that is refused is repeated.

    Errors: ParameterInvalid where most draws are.
    """
    pairs: list[Record] = []
    for number in range(MOST_DRAWS * count):
        if len(pairs) == count:
            break
        try:
            record = draw(np.random.default_rng([seed, number]))
        except ParameterInvalid:
            continue
        pairs.append(_near_defects(record, margin_px))
    if len(pairs) < count:
        raise ParameterInvalid(
            "arms", f"of {MOST_DRAWS * count} drawn pairs {len(pairs)} are legal"
        )
    return pairs


def _near_defects(record: Record, margin_px: int) -> Record:
    """What of a picture a crop near its defects can show: a pool of whole ones fills the memory."""
    inside = []
    for axis in (1, 0):
        (found,) = np.nonzero(record.labels.any(axis=axis))
        inside.append(slice(max(0, found[0] - margin_px), found[-1] + 1 + margin_px))
    rows, columns = inside
    return replace(
        record,
        image=record.image[rows, columns].copy(),
        labels=record.labels[rows, columns].copy(),
    )
