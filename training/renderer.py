"""Draws the demo product "brushed-plate": metal plates, their flaws and the exact truth."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models.arrays import Mask, RgbImage
from training.render_flaws import FLAW_LONGEST_PX, Flaw, Span, cut_flaws, soil
from training.render_surface import Field, Scene, draw_scene

__all__ = ["LABELS", "Flaw", "Plate", "main", "render_plate", "write_plates", "write_samples"]

LABELS = ("pit", "scratch")
MOST_FLAWS = 6
JPEG_QUALITY = 95
TONE_STEPS = 4095
BRIGHTEST = 1.4
"""Linear light that is shown as white; 1 is a well lit plate's highlight."""


@dataclass(frozen=True)
class Plate:
    """A picture and its truth. `metal` is the flat face: no hole, no chamfer, no bench."""

    image: RgbImage
    flaws: tuple[Flaw, ...]
    metal: Mask


@dataclass(frozen=True)
class _Camera:
    """How this part was taken: exposure, focus, colour cast."""

    exposure: float
    blur_px: float
    tint: tuple[float, float, float]
    noise: float

    def develop(self, radiance: Field) -> Field:
        """Linear light to 8-bit levels behind the lens, before noise and tint."""
        return _tone(self.focus(radiance))

    def focus(self, radiance: Field) -> Field:
        exposed = cv2.GaussianBlur(radiance, (7, 7), self.blur_px)
        return np.asarray(exposed * np.float32(self.exposure), np.float32)


def render_plate(rng: np.random.Generator, *, size_hw: tuple[int, int], flaw_count: int) -> Plate:
    """Draw one plate as a camera would see it.

    The plate, its flaws and the camera draw from three streams of `rng`: a fresh generator of the
    same seed gives the same picture for every `flaw_count`, but for the flaws and the lens's 3 px
    around them.

    Shapes: image (H, W, 3) and metal (H, W) of `size_hw`; flaws with masks of their own boxes.
    Errors: ParameterInvalid when so many flaws do not fit.
    """
    return _render(rng, size_hw, flaw_count, FLAW_LONGEST_PX)


def write_plates(
    folder: Path, *, count: int, seed: int, size_hw: tuple[int, int], normal_share: float
) -> None:
    """Write a data set with mask pictures; plate i depends on (seed, i) alone.

    `images/<stem>.jpg`, `masks/<label>/<stem>.png` (0 or 255, absent where the part has no such
    flaw) and `split.csv`. Each plate is its own part; every fifth part is for validation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "split.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("image", "kind", "group", "split"))
        for number in range(count):
            rng = np.random.default_rng([seed, number])
            is_normal = _is_normal(number, normal_share)
            flaw_count = 0 if is_normal else int(rng.integers(1, MOST_FLAWS + 1))
            plate = render_plate(rng, size_hw=size_hw, flaw_count=flaw_count)
            stem = f"plate_{number:04d}"
            _write_picture(folder / "images" / f"{stem}.jpg", plate.image, JPEG_QUALITY)
            _write_masks(folder / "masks", stem, plate)
            kind, split = "normal" if is_normal else "defect", "val" if number % 5 == 4 else "train"
            table.writerow((f"{stem}.jpg", kind, number, split))


def write_samples(folder: Path) -> None:
    """Draw the project's samples: a large plate with tiny flaws, its truth, a normal one."""
    large = _render(np.random.default_rng([2024, 0]), (3008, 4096), 5, (8, 26))
    _write_picture(folder / "plate.jpg", large.image, 90)
    _write_picture(folder / "plate_truth.png", truth_picture(large, LABELS))
    normal = render_plate(np.random.default_rng([2024, 3]), size_hw=(768, 1024), flaw_count=0)
    _write_picture(folder / "normal.jpg", normal.image, 92)


def truth_picture(plate: Plate, labels: Sequence[str]) -> Mask:
    """All flaws of these labels on one (H, W) mask."""
    truth = np.zeros(plate.metal.shape, np.bool_)
    for flaw in plate.flaws:
        if flaw.label in labels:
            height, width = flaw.mask.shape
            truth[flaw.y : flaw.y + height, flaw.x : flaw.x + width] |= flaw.mask
    return truth


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m training.renderer FOLDER --count 240 --seed 7 --size 768x1024`."""
    parser = argparse.ArgumentParser(prog="training.renderer", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--size", type=_size_hw, default=(768, 1024), help="HEIGHTxWIDTH in px")
    parser.add_argument("--normal-share", type=float, default=0.3)
    parser.add_argument("--samples", action="store_true", help="draw the project's samples instead")
    given = parser.parse_args(arguments)
    if given.samples:
        write_samples(given.folder)
        return
    write_plates(
        given.folder,
        count=given.count,
        seed=given.seed,
        size_hw=given.size,
        normal_share=given.normal_share,
    )


def _render(
    rng: np.random.Generator, size_hw: tuple[int, int], flaw_count: int, longest_px: Span
) -> Plate:
    scene_rng, flaw_rng, camera_rng = rng.spawn(3)
    scene = draw_scene(scene_rng, size_hw)
    soil(scene_rng, scene)
    camera = _draw_camera(camera_rng, scene)
    flaws = cut_flaws(flaw_rng, scene, camera.develop, count=flaw_count, longest_px=longest_px)
    return Plate(_expose(camera_rng, camera, scene.radiance), flaws, scene.flat)


def _draw_camera(rng: np.random.Generator, scene: Scene) -> _Camera:
    """Expose so that the plate's median comes out at a level drawn for this part."""
    sparse = np.s_[::8, ::8]
    median = float(np.median(scene.radiance[sparse][scene.flat[sparse]]))
    wanted = (rng.uniform(90, 172) / 255) ** 2.2
    warmth, cast = rng.normal(0, 0.025), rng.normal(0, 0.006)
    return _Camera(
        exposure=float(wanted / median),
        blur_px=float(rng.uniform(0.6, 0.95)),
        tint=(float(1 + warmth + cast), 1.0, float(1 - warmth + cast)),
        noise=float(rng.uniform(1.0, 2.6)),
    )


def _expose(rng: np.random.Generator, camera: _Camera, radiance: Field) -> RgbImage:
    """Lens, tone curve, colour cast, then noise: fine in brightness, coarser in colour."""
    levels = _tone(camera.focus(radiance))
    spread = np.float32(camera.noise) * (np.float32(1.25) - levels / np.float32(400))
    height, width = levels.shape
    grains: Field = rng.standard_normal((height, width), dtype=np.float32)
    levels = levels + spread * grains
    image: RgbImage = np.empty((height, width, 3), np.uint8)
    for channel, gain in enumerate(camera.tint):
        coarse = rng.standard_normal((height // 2 + 1, width // 2 + 1), dtype=np.float32)
        cast = cv2.resize(coarse * np.float32(0.6 * camera.noise), (width, height))
        image[..., channel] = np.clip(cast + levels * np.float32(gain), 0, 255)
    return image


def _tone(light: Field) -> Field:
    """Gamma with a soft shoulder, 0..255, from a table."""
    steps = np.linspace(0, BRIGHTEST, TONE_STEPS + 1)
    shoulder = 1.0 - np.exp(-1.25 * steps - 0.55 * steps**2)
    curve = (255 * (shoulder / shoulder[-1]) ** (1 / 2.2)).astype(np.float32)
    index = np.clip(light * np.float32(TONE_STEPS / BRIGHTEST), 0, TONE_STEPS).astype(np.uint16)
    return np.asarray(curve[index], np.float32)


def _is_normal(number: int, normal_share: float) -> bool:
    """An even sprinkle of normal parts, in every fifth part as in all: golden steps of both."""
    return (0.9 + number * (5 - 5**0.5) / 10) % 1.0 < normal_share


def _write_masks(folder: Path, stem: str, plate: Plate) -> None:
    for label in sorted({flaw.label for flaw in plate.flaws}):
        _write_picture(folder / label / f"{stem}.png", truth_picture(plate, (label,)))


def _write_picture(path: Path, picture: RgbImage | Mask, quality: int = 0) -> None:
    """A mask as 0 and 255, a picture as it is. Errors: OSError when it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = picture.astype(np.uint8)
    pixels = pixels * np.uint8(255) if picture.ndim == 2 else pixels[..., ::-1]
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if quality else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    is_encoded, encoded = cv2.imencode(path.suffix, pixels, options)
    if not is_encoded:
        raise OSError(f"{path.name} could not be encoded")
    path.write_bytes(encoded.tobytes())


def _size_hw(text: str) -> tuple[int, int]:
    height, width = text.lower().split("x")
    return int(height), int(width)


if __name__ == "__main__":
    main()
