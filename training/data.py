"""Imported samples -> pictures in memory, crops and batches; split by group, never by image."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.arrays import RgbImage
from models.errors import InputError, ParameterInvalid
from models.steps.outlines import Region, bridge_diagonals, find_regions
from models.steps.pictures import Picture, PictureLimits, decode_picture, encode_png
from training.annotations import AnnotationMalformed
from training.augment import LabelMap
from training.markings import Marking, Sample

LIMITS = PictureLimits()
PAIRS = "synthetic.json"
"""The index of a run's synthetic pictures, where it has any; it holds a digest of them all."""
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One line of an imported data set's index."""

    image: str
    labels: str
    group: str
    split: str


@dataclass(frozen=True)
class Flaw:
    """One annotated defect: label index from 1, its region in the picture."""

    label: int
    region: Region

    @property
    def side_px(self) -> int:
        """Longest side of its box."""
        return max(self.region.box[2:])


@dataclass(frozen=True)
class Record:
    """A picture in memory with its label map (0 background, k the k-th label) and flaws.

    name: the picture's file, which no other record has.
    """

    name: str
    group: str
    image: RgbImage
    labels: LabelMap

    @cached_property
    def flaws(self) -> tuple[Flaw, ...]:
        """The connected regions of each label."""
        kinds = [int(k) for k in np.unique(self.labels) if k]
        return tuple(
            Flaw(k, region)
            for k in kinds
            for region in find_regions(bridge_diagonals(self.labels == k))
        )


@dataclass(frozen=True)
class Dataset:
    """The imported pictures of a run, split by group.

    synthetic: what generators made, for locator and segmenter to train on; never judged by.
    """

    labels: tuple[str, ...]
    train: tuple[Record, ...]
    val: tuple[Record, ...]
    synthetic: tuple[Record, ...] = ()

    @cached_property
    def train_defects(self) -> tuple[Record, ...]:
        """Training pictures with at least one defect."""
        return tuple(r for r in self.train if r.flaws)

    @cached_property
    def train_normals(self) -> tuple[Record, ...]:
        """Training pictures without a defect."""
        return tuple(r for r in self.train if not r.flaws)

    @cached_property
    def val_normals(self) -> tuple[Record, ...]:
        """Validation pictures without a defect."""
        return tuple(r for r in self.val if not r.flaws)


def keep_labels(samples: list[Sample], labels: Sequence[str]) -> list[Sample]:
    """Only pictures whose defects are all of the named kinds, and the normal ones.

    The last words of a label name it too: `Crack` is `mt-crack`.

    Errors: ParameterInvalid where no sample carries a named kind.
    """
    known = {marking.label for sample in samples for marking in sample.markings}
    kept: set[str] = set()
    for asked in labels:
        word = asked.strip().lower()
        named = {label for label in known if label == word or label.endswith(f"-{word}")}
        if not named:
            raise ParameterInvalid("labels", f"{asked!r} is none of {', '.join(sorted(known))}")
        kept |= named
    return [s for s in samples if all(marking.label in kept for marking in s.markings)]


def split_samples(samples: list[Sample], *, val_share: float, seed: int) -> list[Sample]:
    """Give each sample without a side its own, by group."""
    return [
        replace(s, split=s.split or draw_split(s.group, val_share=val_share, seed=seed))
        for s in samples
    ]


def keep_shots(samples: list[Sample], count: int, *, seed: int) -> list[Sample]:
    """Only `count` defect pictures on the train side; all normal ones, and the whole val side.

    The kinds take turns, so each is there; within a kind a group that gave fewest goes first.
    Samples have their sides.

    Errors: ParameterInvalid where the train side has fewer pictures, or more kinds, than `count`.
    """
    pool = [s for s in samples if s.split == "train" and s.markings]
    kinds = sorted({marking.label for s in pool for marking in s.markings})
    if count < len(kinds):
        raise ParameterInvalid("shots", f"{count} cannot show all {len(kinds)} labels")
    if count > len(pool):
        raise ParameterInvalid("shots", f"{count} of {len(pool)} training pictures with a defect")
    rng = np.random.default_rng(seed)
    turns = [kinds[i] for i in rng.permutation(len(kinds))]
    left = [pool[i] for i in rng.permutation(len(pool))]
    taken: Counter[str] = Counter()
    for turn in range(count):
        kind = turns[turn % len(turns)]
        of_kind = [s for s in left if any(m.label == kind for m in s.markings)] or left
        chosen = min(of_kind, key=lambda s: taken[s.group])
        left.remove(chosen)
        taken[chosen.group] += 1
    dropped = {sample.image for sample in left}
    return [s for s in samples if s.image not in dropped]


def store_samples(samples: list[Sample], folder: Path, *, val_share: float, seed: int) -> None:
    """Write an index and one label-map PNG for each marked picture; pictures stay where they are.

    Errors: AnnotationMalformed where a picture is broken, a mask does not fit its picture, a group
            would be on both sides, a side lacks defects or normal pictures, or no training picture
            carries a label.
    """
    names = sorted({marking.label for sample in samples for marking in sample.markings})
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    rows = []
    for index, sample in enumerate(split_samples(samples, val_share=val_share, seed=seed)):
        labels = ""
        if sample.markings:
            labels = f"labels/{index:05d}.png"
            label_map = draw_labels(sample.markings, _decode(sample.image).hw, names)
            (folder / labels).write_bytes(encode_png(label_map))
        rows.append(Row(str(sample.image.resolve()), labels, sample.group, sample.split))
    require_split_by_group(rows, folder)
    require_both_kinds(rows, folder)
    trained = (s for s, row in zip(samples, rows, strict=True) if row.split == "train")
    require_labels({m.label for s in trained for m in s.markings}, names, folder)
    index_file = {"labels": names, "rows": [asdict(row) for row in rows]}
    (folder / "samples.json").write_text(json.dumps(index_file, indent=1))


def draw_labels(markings: Sequence[Marking], hw: tuple[int, int], names: Sequence[str]) -> LabelMap:
    """The label map of a picture; where markings overlap, the later one counts."""
    label_map = np.zeros(hw, np.uint8)
    for marking in markings:
        label_map[marking.draw(hw)] = 1 + names.index(marking.label)
    return label_map


def draw_split(group: str, *, val_share: float, seed: int) -> str:
    """train or val for a whole group, from a digest of its name: stable when data is added."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return "val" if int.from_bytes(digest[:8], "big") / 2**64 < val_share else "train"


def require_split_by_group(rows: list[Row], source: Path) -> None:
    """Refuse a split that puts one group on both sides, or leaves a side empty."""
    sides = {side: {r.group for r in rows if r.split == side} for side in ("train", "val")}
    shared = sides["train"] & sides["val"]
    if shared:
        raise AnnotationMalformed(source, "split", f"groups on both sides: {sorted(shared)[:3]}")
    for side, groups in sides.items():
        if not groups:
            raise AnnotationMalformed(source, "split", f"no group is left for {side}")


def require_both_kinds(rows: list[Row], source: Path) -> None:
    """Refuse a side without marked or without normal pictures: each network needs both."""
    for side in ("train", "val"):
        marked = {bool(row.labels) for row in rows if row.split == side}
        for kind, name in ((True, "defect"), (False, "normal picture")):
            if kind not in marked:
                raise AnnotationMalformed(source, "split", f"no {name} is left for {side}")


def require_labels(trained: set[str], labels: list[str], source: Path) -> None:
    """Refuse a label that no training picture carries: it could be told, and never learned."""
    for label in (name for name in labels if name not in trained):
        raise AnnotationMalformed(source, "split", f"no training picture carries {label!r}")


def load_dataset(folder: Path, *, only_val: bool = False) -> Dataset:
    """Decode an imported data set into memory, synthetic pictures too.

    For measuring alone its validation side will do.

    Errors: AnnotationMalformed where a picture is broken.
    """
    content = json.loads((folder / "samples.json").read_text())
    rows = [Row(**row) for row in content["rows"]]
    sides = {side: [r for r in rows if r.split == side] for side in ("train", "val")}
    synthetic = (
        json.loads(pairs.read_text()) if (pairs := folder / PAIRS).exists() else {"rows": []}
    )
    return Dataset(
        labels=tuple(content["labels"]),
        train=() if only_val else tuple(_load(row, folder) for row in sides["train"]),
        val=tuple(_load(row, folder) for row in sides["val"]),
        synthetic=() if only_val else tuple(_load(Row(**r), folder) for r in synthetic["rows"]),
    )


def choose_pool(
    real: Sequence[T], synthetic: Sequence[T], share: float, rng: np.random.Generator
) -> Sequence[T]:
    """What to draw from: with that share, where there are any, the synthetic, else the real."""
    return synthetic if synthetic and rng.random() < share else real


def defect_sides_px(records: tuple[Record, ...]) -> NDArray[np.float64]:
    """Longest sides of all flaws of the records."""
    return np.array([flaw.side_px for record in records for flaw in record.flaws], float)


def crop_radius_px(crop_px: int, data: Dataset) -> float:
    """How far from a crop's centre the largest training defect's centre may lie, and be whole."""
    return max(0.0, (crop_px - float(defect_sides_px(data.train).max())) / 2)


def _load(row: Row, folder: Path) -> Record:
    image = _decode(folder / row.image).as_rgb8()
    if row.labels:
        labels = decode_picture((folder / row.labels).read_bytes(), LIMITS).pixels
    else:
        labels = np.zeros(image.shape[:2], np.uint8)
    return Record(row.image, row.group, image, np.asarray(labels, np.uint8))


def _decode(file: Path) -> Picture:
    try:
        return decode_picture(file.read_bytes(), LIMITS)
    except InputError as error:
        raise AnnotationMalformed(file, "picture", str(error)) from error
