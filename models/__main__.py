"""python -m models {inspect,verify,detect,synthesize}: the bundles and both stories on files."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError

from models.audit import audit
from models.bundle import (
    SHIPPED,
    Bundle,
    find_bundle,
    find_bundles,
    open_bundle,
    read_manifest,
    verify_bundle,
)
from models.detection import Detector, detect
from models.devices import Device, DeviceKind
from models.errors import FlawsmithError, ParameterInvalid
from models.inspection import Rule, Zones
from models.manifest import Manifest
from models.reports import (
    describe_audit,
    describe_detection,
    describe_sample,
    describe_size,
    draw_overlay,
)
from models.steps.contexts import read_contexts
from models.steps.controls import parse_shares
from models.steps.pictures import (
    PictureLimits,
    decode_mask,
    decode_picture,
    encode_jpeg,
    encode_png,
)
from models.synthesis import SynthesisRequest, synthesize

LIMITS = PictureLimits()
Content = TypeVar("Content")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; what is refused is said in one line, with exit status 2."""
    given = _parser().parse_args(arguments)
    try:
        given.command(given)
    except (FlawsmithError, OSError) as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def inspect(given: argparse.Namespace) -> None:
    """List the bundles, or print one manifest, its fingerprints and contexts as their numbers."""
    if given.product:
        folder = find_bundle(given.bundles, given.product, given.version)
        print(json.dumps(_describe_manifest(read_manifest(folder)), indent=2))
        return
    for product, versions in find_bundles(given.bundles).items():
        for version, folder in versions.items():
            manifest = read_manifest(folder)
            size_mb = sum(f.stat().st_size for f in folder.iterdir()) / 1e6
            print(f"{product} {version}  {', '.join(manifest.labels)}  {size_mb:.1f} MB")


def verify(given: argparse.Namespace) -> None:
    """Prove that a bundle's files are the ones that were sealed."""
    folder = find_bundle(given.bundles, given.product, given.version)
    manifest = verify_bundle(folder)
    print(f"{manifest.product} {manifest.version} is as it was sealed")


def detect_in_files(given: argparse.Namespace) -> None:
    """Write <stem>.json and <stem>.overlay.jpg for each picture."""
    bundle = _open(given)
    detector = _asked_detector(given, bundle)
    _require_own_stems(given.pictures)
    for path in given.pictures:
        picture = decode_picture(path.read_bytes(), LIMITS)
        detection = detect(picture, detector)
        about = {"file": path.name, **_name_bundle(bundle), "image": describe_size(picture.hw)}
        about |= describe_detection(detection, detector.mm_per_px)
        if given.audit:
            audited = audit(picture, detection, detector)
            about["audit"] = describe_audit(audited, detector.mm_per_px)
        _write_json(given.out / f"{path.stem}.json", about)
        overlay = draw_overlay(picture.as_rgb8(), detection)
        (given.out / f"{path.stem}.overlay.jpg").write_bytes(encode_jpeg(overlay))
        print(f"{path.name}: {detection.decision}, defects: {len(detection.defects)}")


def synthesize_from_file(given: argparse.Namespace) -> None:
    """Write image_0000.png, mask_0000.png, … and samples.json."""
    bundle = _open(given)
    picture = decode_picture(given.picture.read_bytes(), LIMITS)
    mask = decode_mask(given.mask.read_bytes(), LIMITS) if given.mask else None
    request = SynthesisRequest(
        seed=given.seed,
        count=given.count,
        defects=given.defects,
        label=given.label,
        labels=parse_shares(given.labels) if given.labels is not None else None,
        region=tuple(given.region) if given.region else None,
        size_px=tuple(given.size_px) if given.size_px else None,
        contrast=tuple(given.contrast) if given.contrast else None,
        mask=mask,
    )
    described = []
    for index, sample in enumerate(synthesize(picture, request, bundle.synthesizer)):
        (given.out / f"image_{index:04d}.png").write_bytes(encode_png(sample.pixels))
        (given.out / f"mask_{index:04d}.png").write_bytes(encode_png(sample.mask))
        described.append(describe_sample(sample))
        print(f"image_{index:04d}.png: seed {sample.seed}, defects: {len(sample.defects)}")
    _write_json(given.out / "samples.json", {**_name_bundle(bundle), "samples": described})


def _open(given: argparse.Namespace) -> Bundle:
    folder = find_bundle(given.bundles, given.product, given.version)
    bundle = open_bundle(folder, Device(given.device))
    given.out.mkdir(parents=True, exist_ok=True)
    return bundle


def _asked_detector(given: argparse.Namespace, bundle: Bundle) -> Detector:
    scale = given.mm_per_px
    detector = bundle.detector if scale is None else bundle.detector.at_scale(scale)
    return detector.with_params(
        n=given.n,
        crop_size_px=given.crop_size,
        min_confidence=given.min_confidence,
        min_score=given.min_score,
        review_score=given.review_score,
        extra_crops=given.extra_crops,
        merge_gap_px=given.merge_gap,
        zones=_read_file("zones", given.zones, TypeAdapter(Zones)),
        rules=_read_file("rules", given.rules, TypeAdapter(tuple[Rule, ...])),
    )


def _read_file(name: str, path: Path | None, kind: TypeAdapter[Content]) -> Content | None:
    if path is None:
        return None
    try:
        return kind.validate_json(path.read_bytes())
    except ValidationError as error:
        raise ParameterInvalid(name, str(error)) from None


def _require_own_stems(paths: list[Path]) -> None:
    stems = Counter(path.stem for path in paths)
    if len(stems) < len(paths):
        (stem, _), *_ = stems.most_common(1)
        raise ParameterInvalid("pictures", f"more than one would be written to {stem}.json")


def _describe_manifest(manifest: Manifest) -> dict[str, Any]:
    described = manifest.model_dump(mode="json")
    for shape in described["synthesis"]["shapes"].values():
        shape["fingerprints"] = len(shape["fingerprints"])
        shape["contexts"] = len(read_contexts(shape["contexts"]))
    return described


def _name_bundle(bundle: Bundle) -> dict[str, Any]:
    return {"product": bundle.manifest.product, "version": bundle.manifest.version}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models", description=__doc__)
    parser.add_argument("--bundles", type=Path, default=SHIPPED, help="folder of the bundles")
    commands = parser.add_subparsers(required=True)
    for name, command in (
        ("inspect", inspect),
        ("verify", verify),
        ("detect", detect_in_files),
        ("synthesize", synthesize_from_file),
    ):
        one = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        one.set_defaults(command=command)
        one.add_argument("--product", required=name != "inspect")
        one.add_argument("--version", help="the newest unless named")
        if name in ("detect", "synthesize"):
            one.add_argument("--out", type=Path, default=Path())
            one.add_argument("--device", choices=get_args(DeviceKind), default="auto")
    _add_detect(commands.choices["detect"])
    _add_synthesize(commands.choices["synthesize"])
    return parser


def _add_detect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--n", type=int)
    parser.add_argument("--crop-size", type=int, help="side of the square crops, px")
    parser.add_argument("--min-confidence", type=float)
    parser.add_argument("--min-score", type=float)
    parser.add_argument("--review-score", type=float, help="from it to min-score: review")
    parser.add_argument("--extra-crops", type=int, help="most crops where a defect goes on unseen")
    parser.add_argument("--merge-gap", type=int, help="px between parts of one defect, at most")
    parser.add_argument("--mm-per-px", type=float, help="the camera's scale")
    parser.add_argument("--zones", type=Path, help="JSON as `detection.zones` of the manifest")
    parser.add_argument("--rules", type=Path, help="JSON as `detection.rules` of the manifest")
    parser.add_argument("--audit", action="store_true", help="slice the whole picture as well")


def _add_synthesize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("picture", type=Path)
    parser.add_argument("--mask", type=Path, help="a mask of your own; then only stage 2 runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--defects", type=int, default=1)
    parser.add_argument("--label", help="type of defect; any unless named")
    parser.add_argument("--labels", help="pitting:3,scratch:1: shares of types, in place of one")
    parser.add_argument("--region", type=int, nargs=4, metavar=("X", "Y", "WIDTH", "HEIGHT"))
    bounds = ("LEAST", "MOST")
    parser.add_argument(
        "--size-px", type=int, nargs=2, metavar=bounds, help="longest side of a defect's box, px"
    )
    parser.add_argument(
        "--contrast",
        type=float,
        nargs=2,
        metavar=bounds,
        help="mean change inside a defect, grey levels of 255",
    )


if __name__ == "__main__":
    sys.exit(main())
