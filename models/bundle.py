"""Folder <-> Bundle: open, verify digests, seal."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from pydantic import ValidationError

from models.detection import Detector, detect
from models.devices import Device
from models.errors import BundleAltered, BundleMissing, BundleTooNew, ParameterInvalid
from models.graphs import (
    DefectGenerator,
    HeatmapLocator,
    Locator,
    MaskGenerator,
    PoseLocator,
    Segmenter,
    Wrap,
    wrap_locator,
)
from models.manifest import GRAPH_FILES, SCHEMA_VERSION, GraphSpec, LocatorSpec, Manifest
from models.session import Graph, open_graph
from models.steps.pictures import Picture
from models.synthesis import SynthesisRequest, Synthesizer, synthesize

MANIFEST = "manifest.json"
SHIPPED = Path(__file__).parent / "bundles"
"""Where the shipped bundles lie: <product>/<version>/."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle, ready to run.

    digest: sha256 of its manifest, which holds its graphs': the bundle's identity.
    open_batches: the names of the graphs that take any number of rows, so that calls may share a
    run.
    """

    manifest: Manifest
    detector: Detector
    synthesizer: Synthesizer
    folder: Path
    digest: str
    providers: tuple[str, ...]
    open_batches: frozenset[str]

    def through(self, wrap: Wrap) -> Bundle:
        """The same bundle, each of its graphs called as `wrap` says."""
        detector, synthesizer = self.detector, self.synthesizer
        segmenter, masks = detector.segmenter, synthesizer.mask_generator
        defects = synthesizer.defect_generator
        return replace(
            self,
            detector=replace(
                detector,
                locator=wrap_locator(detector.locator, wrap),
                segmenter=replace(segmenter, graph=wrap("segmenter", segmenter.graph)),
            ),
            synthesizer=replace(
                synthesizer,
                mask_generator=replace(masks, graph=wrap("mask_generator", masks.graph)),
                defect_generator=replace(defects, graph=wrap("defect_generator", defects.graph)),
            ),
        )


def open_bundle(folder: Path, device: Device | None = None) -> Bundle:
    """Verify a bundle's files and load its graphs.

    Errors: those of `verify_bundle`; BundleAltered where a graph's inputs or outputs are not the
            manifest's; DeviceLost.
    """
    manifest = verify_bundle(folder)
    graphs = {
        file: _open_as_described(folder / file, spec, device or Device())
        for file, spec in graph_specs(manifest).items()
    }
    specs = manifest.graphs
    locator, segmenter = graphs["locator.onnx"], graphs["segmenter.onnx"]
    return Bundle(
        manifest=manifest,
        detector=Detector(
            _as_locator(locator, specs.locator),
            Segmenter(segmenter, specs.segmenter.side_px),
            manifest.labels,
            manifest.detection,
            manifest.limits,
            manifest.synthesis.object_rule,
            manifest.calibration.mm_per_px if manifest.calibration else None,
        ),
        synthesizer=Synthesizer(
            MaskGenerator(
                graphs["mask_generator.onnx"],
                specs.mask_generator.side_px,
                specs.mask_generator.noise_size,
                specs.mask_generator.spatial_noise_chw,
            ),
            DefectGenerator(
                graphs["defect_generator.onnx"],
                specs.defect_generator.side_px,
                specs.defect_generator.noise_size,
            ),
            manifest.labels,
            manifest.synthesis,
            manifest.limits,
        ),
        folder=folder,
        digest=digest_of(folder / MANIFEST),
        providers=tuple(locator.providers),
        open_batches=frozenset(
            Path(file).stem for file, graph in graphs.items() if graph.has_open_batch
        ),
    )


def verify_bundle(folder: Path) -> Manifest:
    """Read a bundle's manifest and prove that its files are the ones that were sealed.

    Errors: BundleMissing where there is no folder or manifest; BundleTooNew for a newer schema;
            BundleAltered for a malformed manifest, one of another product or version than its
            folder's, a missing, unknown or changed file, external data in a graph: each by name.
    """
    manifest = read_manifest(folder)
    place = folder.absolute()
    if (place.parent.name, place.name) != (manifest.product, manifest.version):
        raise BundleAltered(
            f"{MANIFEST} is that of {manifest.product}/{manifest.version}, "
            f"and lies in {place.parent.name}/{place.name}"
        )
    known = {MANIFEST, *GRAPH_FILES}
    for path in sorted(folder.iterdir()):
        if path.name not in known or not path.is_file() or path.is_symlink():
            raise BundleAltered(f"{path.name} does not belong to the bundle {folder.name}")
    for file, spec in graph_specs(manifest).items():
        path = folder / file
        if not path.is_file():
            raise BundleAltered(f"{file} is missing")
        if digest_of(path) != spec.sha256:
            raise BundleAltered(f"{file} is not the file that was sealed: its sha256 differs")
        _require_self_contained(path)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone; the files beside it are not looked at."""
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleMissing(f"there is no {MANIFEST} in {folder.name}")
    try:
        content = json.loads(path.read_bytes())
        version = content["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleAltered(f"{MANIFEST} has no schema_version or is no JSON object") from error
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleTooNew(
            f"{MANIFEST} has schema {version}; this Flawsmith reads up to {SCHEMA_VERSION}"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        reasons = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BundleAltered(f"{MANIFEST} is malformed: {'; '.join(reasons)}") from error


def find_bundles(root: Path) -> dict[str, dict[str, Path]]:
    """product -> version -> folder, products by name, versions from oldest to newest.

    Every folder <product>/<version>/ counts, so that one without a manifest is missed by name.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(root.glob("[!.]*/[!.]*/")):
        found.setdefault(path.parent.name, {})[path.name] = path
    return {
        product: dict(sorted(versions.items(), key=lambda item: version_key(item[0])))
        for product, versions in found.items()
    }


def find_bundle(root: Path, product: str, version: str | None = None) -> Path:
    """The folder of a product's version, the newest unless one is named; BundleMissing."""
    versions = find_bundles(root).get(product, {})
    if not versions or (version is not None and version not in versions):
        raise BundleMissing(f"there is no bundle {product} {version or ''}".rstrip())
    return versions[version or next(reversed(versions))]


def seal_bundle(graphs: dict[str, Path], manifest: Manifest, root: Path) -> Path:
    """Write a bundle under root/<product>/<version>; its folder appears whole or not at all.

    graphs: file name -> the exported graph. The manifest's digests must be theirs.
    Errors: BundleAltered where they are not, or where that version is there already.
    """
    folder = root / manifest.product / manifest.version
    if folder.exists():
        raise BundleAltered(f"{manifest.product} {manifest.version} is sealed already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=root, prefix=".unsealed-") as made:
        unsealed = Path(made) / manifest.product / manifest.version
        unsealed.mkdir(parents=True)
        for file in GRAPH_FILES:
            shutil.copyfile(graphs[file], unsealed / file)
        (unsealed / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
        verify_bundle(unsealed)
        unsealed.rename(folder)
    return folder


def warm_up(bundle: Bundle) -> None:
    """Tell both stories once on a small grey picture, so that no client pays for the first run."""
    side_px = max(bundle.manifest.limits.min_side_px, 2 * bundle.detector.params.crop_size_px)
    picture = Picture(np.full((side_px, side_px, 3), 128, np.uint8))
    detect(picture, bundle.detector.with_params(min_confidence=0.0))
    try:
        next(synthesize(picture, SynthesisRequest(seed=0), bundle.synthesizer))
    except ParameterInvalid:
        return  # a flat picture need not take a visible defect; both graphs have run


def graph_specs(manifest: Manifest) -> dict[str, GraphSpec]:
    """File name -> what the manifest says of it."""
    graphs = manifest.graphs
    specs = (graphs.mask_generator, graphs.defect_generator, graphs.locator, graphs.segmenter)
    return dict(zip(GRAPH_FILES, specs, strict=True))


def digest_of(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def version_key(version: str) -> tuple[int, ...]:
    """1.10 is newer than 1.9; what is no version sorts before all that are."""
    parts = version.split(".")
    return tuple(int(part) for part in parts) if all(p.isdecimal() for p in parts) else ()


def _require_self_contained(path: Path) -> None:
    """Refuse a graph that is malformed or keeps weights in another file, wherever that lies."""
    try:
        graph = onnx.load(path, load_external_data=False)
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors_in(graph)):
            raise BundleAltered(f"{path.name} keeps weights in another file")
        onnx.checker.check_model(path)
    except (onnx.checker.ValidationError, DecodeError) as error:
        raise BundleAltered(f"{path.name} is no graph: {error}") from error


def _tensors_in(message: Message) -> Iterator[onnx.TensorProto]:
    """Every tensor of a graph, in subgraphs and attributes as well."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in [value] if isinstance(value, Message) else value:
            if isinstance(part, onnx.TensorProto):
                yield part
            else:
                yield from _tensors_in(part)


def _as_locator(graph: Graph, spec: LocatorSpec) -> Locator:
    if spec.kind == "deeppose":
        assert spec.look_hw  # the manifest refuses one without
        return PoseLocator(graph, spec.look_hw)
    peaks = graph.only("peaks") if "peaks" in spec.outputs else None
    return HeatmapLocator(graph, spec.stride_px, spec.multiple_px, peaks)


def _open_as_described(path: Path, spec: GraphSpec, device: Device) -> Graph:
    graph = open_graph(path, device)
    if graph.input_names != set(spec.inputs):
        raise BundleAltered(
            f"{path.name} takes {sorted(graph.input_names)}, its manifest {sorted(spec.inputs)}"
        )
    if graph.output_names != list(spec.outputs):
        raise BundleAltered(
            f"{path.name} gives {graph.output_names}, its manifest {list(spec.outputs)}"
        )
    return graph
