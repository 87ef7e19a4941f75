from __future__ import annotations

import os

from service.bundles.folders import stamp_of, stamps_in


def test_every_version_of_every_product_has_a_stamp(bundles):
    assert list(stamps_in(bundles)) == [("second", "1"), ("tiny", "9"), ("tiny", "10")]


def test_a_stamp_stays_until_a_file_arrives_grows_or_is_replaced(tmp_path):
    stamps = [stamp_of(tmp_path)]
    file = tmp_path / "locator.onnx"
    file.write_bytes(b"one")
    stamps.append(stamp_of(tmp_path))
    is_stable = stamp_of(tmp_path) == stamps[-1]
    file.write_bytes(b"more")
    stamps.append(stamp_of(tmp_path))
    os.utime(file, ns=(1, 1))
    stamps.append(stamp_of(tmp_path))

    assert is_stable
    assert len(set(stamps)) == len(stamps)


def test_a_folder_that_is_gone_has_an_empty_stamp(tmp_path):
    assert stamp_of(tmp_path / "gone") == ()


def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    assert stamps_in(tmp_path / "gone") == {}
