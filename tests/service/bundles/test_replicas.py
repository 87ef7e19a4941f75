from __future__ import annotations

import pytest

from models.devices import Device
from models.errors import BundleAltered, DeviceLost
from service.bundles.replicas import BundleRefused, open_replicas, reason_of, warmed
from tests.tiny import break_graph, write_tiny_bundle

CPU = Device("cpu", 1)


def test_each_device_gets_a_copy_of_its_own(bundles):
    one, other = open_replicas(bundles / "tiny" / "9", [CPU, CPU], warmed)

    assert one.manifest == other.manifest
    assert one.detector.segmenter.graph is not other.detector.segmenter.graph


def test_a_graph_that_fails_when_it_runs_is_refused_by_name(tmp_path):
    folder = write_tiny_bundle(tmp_path)
    break_graph(folder)

    with pytest.raises(BundleRefused, match=r"bundle tiny/1: segmenter\.onnx"):
        open_replicas(folder, [CPU], warmed)


def test_what_fails_while_it_is_prepared_is_refused(bundles):
    def prepare(bundle):
        raise KeyError(bundle.folder)

    with pytest.raises(BundleRefused) as refusal:
        open_replicas(bundles / "tiny" / "9", [CPU], prepare)

    assert refusal.value.reason == "it fails when it first runs: KeyError"


def test_a_file_that_is_no_graph_is_refused_without_its_place(tmp_path):
    folder = write_tiny_bundle(tmp_path)
    (folder / "locator.onnx").write_bytes(b"\x08no graph")

    with pytest.raises(BundleRefused) as refusal:
        open_replicas(folder, [CPU], warmed)

    assert "locator.onnx" in refusal.value.reason
    assert str(tmp_path) not in refusal.value.reason


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (BundleAltered("{folder}/locator.onnx is odd"), "locator.onnx is odd"),
        (DeviceLost("at /home/a/c.cc:7 in '/opt/x/y.so'"), "at c.cc:7 in 'y.so'"),
        (ValueError("3/4 of a/b"), "3/4 of a/b"),
        (PermissionError(13, "Permission denied", "/secret"), "Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ZeroDivisionError("/secret"), "it fails when it first runs: ZeroDivisionError"),
        (ValueError("x" * 9999), "x" * 400),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_reason_names_no_folder_of_the_machine(tmp_path, error, told):
    error.args = tuple(
        one.format(folder=tmp_path) if isinstance(one, str) else one for one in error.args
    )

    reason = reason_of(error, tmp_path)

    assert told in reason
    assert str(tmp_path) not in reason
    assert "/secret" not in reason
