from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

from models.bundle import (
    SHIPPED,
    Bundle,
    digest_of,
    find_bundle,
    find_bundles,
    graph_specs,
    open_bundle,
    read_manifest,
    seal_bundle,
    verify_bundle,
    version_key,
    warm_up,
)
from models.devices import CPU, Device
from models.errors import BundleAltered, BundleMissing, BundleTooNew
from models.graphs import HeatmapLocator, PoseLocator
from models.manifest import GRAPH_FILES
from tests.tiny import LocatorKind, write_tiny_bundle

ON_CPU = Device("cpu", threads=1)


@pytest.fixture
def folder(tiny_root: Path, tmp_path: Path) -> Path:
    """A sealed bundle of this test's own, to be spoilt."""
    return Path(shutil.copytree(tiny_root / "tiny/1", tmp_path / "tiny/1"))


def rewrite_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def reseal(folder: Path, file: str, model: onnx.ModelProto) -> None:
    """Put another graph in, with the digest that it has."""
    (folder / file).write_bytes(model.SerializeToString())
    path = folder / "manifest.json"
    content: dict[str, Any] = json.loads(path.read_text())
    content["graphs"][Path(file).stem]["sha256"] = digest_of(folder / file)
    path.write_text(json.dumps(content))


def shipped() -> list[Path]:
    return [path for versions in find_bundles(SHIPPED).values() for path in versions.values()]


@pytest.mark.parametrize("folder", shipped(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_shipped_bundle_is_as_it_was_sealed_and_runs(folder: Path) -> None:
    manifest = verify_bundle(folder)

    bundle = open_bundle(folder, ON_CPU)

    assert bundle.manifest == manifest
    warm_up(bundle)


def test_an_opened_bundle_tells_both_stories_with_its_manifests_numbers(folder: Path) -> None:
    bundle = open_bundle(folder, ON_CPU)

    manifest = bundle.manifest
    assert bundle.folder == folder
    assert bundle.providers == (CPU,)
    assert bundle.detector.params == manifest.detection
    assert bundle.detector.locator.stride_px == manifest.graphs.locator.stride_px
    assert bundle.detector.segmenter.side_px == manifest.graphs.segmenter.side_px
    assert bundle.synthesizer.params == manifest.synthesis
    assert bundle.synthesizer.mask_generator.noise_size == manifest.graphs.mask_generator.noise_size
    assert bundle.detector.labels == bundle.synthesizer.labels == ("pit", "scratch")


def test_a_bundle_is_warmed_up_though_a_flat_picture_takes_no_visible_defect(
    tiny: Bundle,
) -> None:
    warm_up(tiny)


@pytest.mark.parametrize(
    ("kind", "locator", "finds_peaks"),
    [
        ("field", HeatmapLocator, False),
        ("peaks", HeatmapLocator, True),
        ("points", PoseLocator, False),
    ],
)
def test_a_bundle_brings_the_locator_that_its_manifest_names(
    tmp_path: Path, kind: LocatorKind, locator: type, finds_peaks: bool
) -> None:
    folder = write_tiny_bundle(tmp_path, locator=kind)

    bundle = open_bundle(folder, Device("cpu", threads=1))

    assert isinstance(bundle.detector.locator, locator)
    assert (getattr(bundle.detector.locator, "peaks", None) is not None) == finds_peaks
    warm_up(bundle)


def test_every_graph_has_its_spec(tiny: Bundle) -> None:
    specs = graph_specs(tiny.manifest)

    assert set(specs) == set(GRAPH_FILES)
    assert {file: spec.sha256 for file, spec in specs.items()} == {
        file: digest_of(tiny.folder / file) for file in GRAPH_FILES
    }


@pytest.mark.parametrize("file", GRAPH_FILES)
def test_an_altered_graph_is_refused(folder: Path, file: str) -> None:
    content = bytearray((folder / file).read_bytes())
    content[-1] ^= 1
    (folder / file).write_bytes(bytes(content))

    with pytest.raises(BundleAltered, match=file):
        open_bundle(folder, ON_CPU)


@pytest.mark.parametrize("file", GRAPH_FILES)
def test_a_missing_graph_is_refused(folder: Path, file: str) -> None:
    (folder / file).unlink()

    with pytest.raises(BundleAltered, match=f"{file} is missing"):
        open_bundle(folder, ON_CPU)


def test_an_unknown_file_is_refused(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"")

    with pytest.raises(BundleAltered, match=r"weights\.bin"):
        open_bundle(folder, ON_CPU)


def test_a_folder_in_a_bundle_is_refused(folder: Path) -> None:
    (folder / "weights").mkdir()

    with pytest.raises(BundleAltered, match="weights"):
        open_bundle(folder, ON_CPU)


@pytest.mark.parametrize("file", ["locator.onnx", "manifest.json"])
def test_a_file_that_is_a_link_is_refused_though_its_content_is_right(
    folder: Path, tmp_path: Path, file: str
) -> None:
    (folder / file).rename(tmp_path / file)
    (folder / file).symlink_to(tmp_path / file)

    with pytest.raises(BundleAltered, match=file):
        open_bundle(folder, ON_CPU)


@pytest.mark.parametrize("location", ["../weights.bin", "manifest.json", "nowhere.bin"])
def test_a_graph_that_keeps_weights_in_another_file_is_refused(folder: Path, location: str) -> None:
    (folder.parent / "weights.bin").write_bytes(bytes(1 << 16))
    model = onnx.load(folder / "mask_generator.onnx")
    for tensor in model.graph.initializer:
        onnx.external_data_helper.set_external_data(tensor, location, length=4)
        tensor.ClearField("raw_data")
    reseal(folder, "mask_generator.onnx", model)

    with pytest.raises(BundleAltered, match=r"mask_generator\.onnx keeps weights in another file"):
        open_bundle(folder, ON_CPU)


def test_weights_outside_are_found_in_an_attribute_too(folder: Path) -> None:
    model = onnx.load(folder / "locator.onnx")
    hidden = onnx.TensorProto(data_type=onnx.TensorProto.FLOAT, dims=[1], raw_data=bytes(4))
    onnx.external_data_helper.set_external_data(hidden, "../weights.bin")
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["unused"], value=hidden))
    reseal(folder, "locator.onnx", model)

    with pytest.raises(BundleAltered, match=r"locator\.onnx keeps weights in another file"):
        open_bundle(folder, ON_CPU)


def test_a_graph_with_a_right_digest_and_no_sense_is_refused(folder: Path) -> None:
    reseal(folder, "segmenter.onnx", onnx.ModelProto())

    with pytest.raises(BundleAltered, match=r"segmenter\.onnx"):
        open_bundle(folder, ON_CPU)


def test_a_graph_that_takes_something_else_than_its_manifest_says_is_refused(folder: Path) -> None:
    reseal(folder, "segmenter.onnx", onnx.load(folder / "mask_generator.onnx"))

    with pytest.raises(BundleAltered, match=r"segmenter\.onnx takes"):
        open_bundle(folder, ON_CPU)


def test_a_graph_that_gives_something_else_than_its_manifest_says_is_refused(folder: Path) -> None:
    reseal(folder, "segmenter.onnx", onnx.load(folder / "locator.onnx"))

    with pytest.raises(BundleAltered, match=r"segmenter\.onnx gives"):
        open_bundle(folder, ON_CPU)


def test_a_newer_schema_is_refused_before_its_fields_are_judged(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"schema_version": 2, "everything": "else"}')

    with pytest.raises(BundleTooNew, match=r"manifest\.json has schema 2"):
        open_bundle(folder, ON_CPU)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"schema_version": 1}', '{"schema_version": "2"}']
)
def test_a_malformed_manifest_is_refused_by_name_in_one_line(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)

    with pytest.raises(BundleAltered, match=r"^manifest\.json [^\n]*$"):
        open_bundle(folder, ON_CPU)


def test_a_manifest_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(BundleAltered, match=r"manifest\.json"):
        open_bundle(folder, ON_CPU)


@pytest.mark.parametrize("changes", [{"product": "other"}, {"version": "2"}])
def test_a_bundle_in_anothers_place_is_refused(folder: Path, changes: dict[str, str]) -> None:
    rewrite_manifest(folder, **changes)

    with pytest.raises(BundleAltered, match=r"manifest\.json .* lies in tiny/1"):
        open_bundle(folder, ON_CPU)


def test_a_folder_without_a_manifest_or_no_folder_is_missing(folder: Path) -> None:
    (folder / "manifest.json").unlink()

    for place in (folder, folder / "nowhere"):
        with pytest.raises(BundleMissing, match=r"manifest\.json"):
            open_bundle(place, ON_CPU)


def test_a_manifest_comes_back_as_it_was_sealed(tiny: Bundle, tmp_path: Path) -> None:
    graphs = {file: tiny.folder / file for file in GRAPH_FILES}

    sealed = seal_bundle(graphs, tiny.manifest, tmp_path)

    assert sealed == tmp_path / "tiny/1"
    assert read_manifest(sealed) == tiny.manifest
    assert {path.name for path in sealed.iterdir()} == {"manifest.json", *GRAPH_FILES}


def test_a_sealed_version_is_never_written_over(tiny: Bundle, folder: Path) -> None:
    graphs = {file: tiny.folder / file for file in GRAPH_FILES}

    with pytest.raises(BundleAltered, match="tiny 1 is sealed already"):
        seal_bundle(graphs, tiny.manifest, folder.parent.parent)


def test_of_a_bundle_that_cannot_be_sealed_nothing_is_left(tiny: Bundle, tmp_path: Path) -> None:
    graphs = {file: tiny.folder / file for file in GRAPH_FILES}
    graphs["locator.onnx"] = tiny.folder / "segmenter.onnx"

    with pytest.raises(BundleAltered, match=r"locator\.onnx"):
        seal_bundle(graphs, tiny.manifest, tmp_path)

    assert [path for path in tmp_path.rglob("*") if path.name != "tiny"] == []
    assert find_bundles(tmp_path) == {}


def test_bundles_are_found_products_by_name_versions_by_age(tmp_path: Path) -> None:
    for product, version in (("tiny", "10"), ("tiny", "9"), ("tiny", "9.1"), ("able", "1")):
        write_tiny_bundle(tmp_path, product=product, version=version)

    found = find_bundles(tmp_path)

    assert list(found) == ["able", "tiny"]
    assert list(found["tiny"]) == ["9", "9.1", "10"]
    assert find_bundle(tmp_path, "tiny") == tmp_path / "tiny/10"
    assert find_bundle(tmp_path, "tiny", "9") == tmp_path / "tiny/9"


@pytest.mark.parametrize(
    ("product", "version"), [("other", None), ("tiny", "2"), ("..", None), ("tiny/1", None)]
)
def test_a_bundle_that_is_not_there_is_missing_by_name(
    tiny_root: Path, product: str, version: str | None
) -> None:
    with pytest.raises(BundleMissing, match=product):
        find_bundle(tiny_root, product, version)


def test_where_there_is_no_folder_there_are_no_bundles(tmp_path: Path) -> None:
    assert find_bundles(tmp_path / "nowhere") == {}


def test_versions_are_compared_as_numbers() -> None:
    versions = ["1.10", "latest", "2", "1.9", "1.9.1"]

    assert sorted(versions, key=version_key) == ["latest", "1.9", "1.9.1", "1.10", "2"]


def test_a_detector_knows_the_scale_and_how_its_object_is_found(tiny: Bundle) -> None:
    assert tiny.detector.mm_per_px is None
    assert tiny.detector.object_rule == tiny.manifest.synthesis.object_rule


def test_every_graph_is_called_through_what_is_put_round_it(tiny: Bundle) -> None:
    called = []

    def note(name, graph):
        def call(**arrays):
            called.append(name)
            return graph(**arrays)

        return call

    warm_up(tiny.through(note))

    assert set(called) == {"locator", "segmenter", "mask_generator", "defect_generator"}
    assert tiny.detector.segmenter.graph != tiny.through(note).detector.segmenter.graph


def test_a_bundle_tells_which_graphs_take_any_number_of_rows(tmp_path: Path, tiny: Bundle) -> None:
    one = open_bundle(write_tiny_bundle(tmp_path, segmenter="one"), ON_CPU)

    assert tiny.open_batches == {"segmenter", "mask_generator", "defect_generator"}
    assert one.open_batches == {"mask_generator", "defect_generator"}
