"""Synthetic pictures and their truth, from `/synthesize` or from `models synthesize`, into a run.

They are training pictures of locator and segmenter alone, kept apart from the imported ones.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile

import numpy as np

from models.arrays import Mask, RgbImage
from models.errors import InputError, ParameterInvalid
from models.steps.outlines import Polygon, fill_polygon
from models.steps.pictures import PictureLimits, decode_mask, decode_picture, encode_png
from training.annotations import AnnotationMalformed, finite_points, label_of, load_json, need
from training.data import PAIRS, Dataset, Record, Row, draw_labels
from training.importers import read_coco
from training.markings import Draw, Marking, Sample

LIMITS = PictureLimits()
STEP_PX = 37
"""Every so manieth pixel of both axes tells most pictures apart, before all are compared."""


def read_pairs(source: Path, data: Dataset) -> Iterator[Record]:
    """The pictures of a folder or zip file, `image_0000.png` with `mask_0000.png` and so on.

    Outlines and labels are those of `annotations.json` (COCO) or `samples.json`. Outside its mask
    each is its normal picture, bit for bit: by that the normal is known, gives it its group and
    whatever was annotated there already. One of no known normal has the group `synthetic`.

    Errors: AnnotationMalformed where a file is missing or broken, or outlines and mask differ;
            ParameterInvalid where a label is none of the data's, or a normal is of validation.
    """
    with _unpacked(source) as folder:
        for sample in _read_samples(folder):
            yield _read_pair(sample, data)


def store_pairs(pairs: Iterable[Record], run: Path) -> int:
    """Write the synthetic pictures of a run in place of any before, and their index; how many.

    The index holds a digest of all files, so that a training knows what it was begun with.
    """
    digest, rows = hashlib.sha256(), []
    shutil.rmtree(run / "synthetic", ignore_errors=True)
    (run / PAIRS).unlink(missing_ok=True)
    for index, pair in enumerate(pairs):
        row = Row(f"synthetic/{index:05d}.png", f"synthetic/{index:05d}.labels.png", pair.group, "")
        (run / "synthetic").mkdir(exist_ok=True)
        for name, pixels in ((row.image, pair.image), (row.labels, pair.labels)):
            (run / name).write_bytes(encoded := encode_png(pixels))
            digest.update(encoded)
        rows.append(asdict(row))
    if rows:
        index_file = {"sha256": digest.hexdigest(), "rows": rows}
        (run / PAIRS).write_text(json.dumps(index_file, indent=1))
    return len(rows)


@contextmanager
def _unpacked(source: Path) -> Iterator[Path]:
    if source.is_dir():
        yield source
        return
    with TemporaryDirectory() as folder:
        try:
            with ZipFile(source) as archive:
                archive.extractall(folder)
        except (BadZipFile, FileNotFoundError) as error:
            raise AnnotationMalformed(source, "synthetic", "is no folder and no zip") from error
        yield Path(folder)


def _read_samples(folder: Path) -> list[Sample]:
    if (file := folder / "annotations.json").exists():
        return read_coco(file)
    file = folder / "samples.json"
    return [
        Sample(
            folder / f"image_{index:04d}.png",
            group="",
            markings=tuple(_read_defects(sample, file, f"samples[{index}]")),
        )
        for index, sample in enumerate(need(load_json(file), "samples", list, file, ""))
    ]


def _read_defects(sample: object, file: Path, where: str) -> Iterator[Marking]:
    """The defects of one sample, as `python -m models synthesize` writes them."""
    for index, defect in enumerate(need(sample, "defects", list, file, where)):
        place = f"{where}.defects[{index}]"
        label = label_of(need(defect, "label", str, file, place), file, f"{place}.label")
        polygon, path = need(defect, "polygon", dict, file, place), f"{place}.polygon"
        exterior, *holes = (
            finite_points(ring, file, path)
            for ring in (
                need(polygon, "exterior", list, file, path),
                *need(polygon, "holes", list, file, path),
            )
        )
        yield Marking(label, _drawer(Polygon(exterior, tuple(holes))))


def _drawer(polygon: Polygon) -> Draw:
    return lambda hw: fill_polygon(polygon, hw)


def _read_pair(sample: Sample, data: Dataset) -> Record:
    """One picture with its truth, proved against its mask."""
    file = sample.image.with_name(sample.image.name.replace("image_", "mask_"))
    try:
        image = decode_picture(sample.image.read_bytes(), LIMITS).as_rgb8()
        mask = decode_mask(file.read_bytes(), LIMITS)
    except (InputError, FileNotFoundError) as error:
        raise AnnotationMalformed(sample.image, "synthetic", str(error)) from error
    for label in (m.label for m in sample.markings if m.label not in data.labels):
        raise ParameterInvalid("synthetic", f"{label!r} is none of {', '.join(data.labels)}")
    labels = draw_labels(sample.markings, image.shape[:2], data.labels)
    if not np.array_equal(labels > 0, mask):
        raise AnnotationMalformed(file, "synthetic", "is not what the outlines enclose")
    if any(_is_made_of(image, mask, record) for record in data.val):
        reason = f"{sample.image.name} was made of a picture that is for validation"
        raise ParameterInvalid("synthetic", reason)
    normal = next((r for r in data.train if _is_made_of(image, mask, r)), None)
    if normal is None:
        return Record(sample.image.name, "synthetic", image, labels)
    there = np.where(labels > 0, labels, normal.labels)
    return Record(sample.image.name, normal.group, image, np.asarray(there, np.uint8))


def _is_made_of(image: RgbImage, mask: Mask, record: Record) -> bool:
    """Whether a picture is another's, bit for bit, wherever its mask is not set."""
    if image.shape != record.image.shape:
        return False
    few = (slice(None, None, STEP_PX), slice(None, None, STEP_PX))
    return all(
        bool(((image[part] == record.image[part]).all(axis=2) | mask[part]).all())
        for part in (few, ...)
    )
