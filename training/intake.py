"""Which pictures a run is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training.data import keep_labels, keep_shots, split_samples
from training.importers import import_folders
from training.markings import Sample
from training.recipes import Recipe


def choose_samples(
    folders: Sequence[Path],
    recipe: Recipe,
    *,
    labels: Sequence[str] = (),
    shots: int | None = None,
    shots_seed: int = 0,
) -> tuple[list[Sample], list[Path]]:
    """All pictures of the folders, or those of some labels, or of few shots; and those left out.

    Left out are pictures with crops that nobody looked at. Errors: AnnotationMalformed;
    ParameterInvalid for labels or shots that are not to be had.
    """
    samples, left_out = import_folders(folders)
    if labels:
        samples = keep_labels(samples, labels)
    if shots is not None:
        sided = split_samples(samples, val_share=recipe.val_share, seed=recipe.seed)
        samples = keep_shots(sided, shots, seed=shots_seed)
    return samples, left_out
