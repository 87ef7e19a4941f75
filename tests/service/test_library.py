from __future__ import annotations

import shutil

import pytest

from models.errors import BundleError, BundleMissing
from service.library import open_library, provider_of
from service.settings import Settings
from service.telemetry import Telemetry
from tests.tiny import write_tiny_bundle


def library(bundles, **settings):
    return open_library(Settings(bundles=bundles, threads=1, **settings), Telemetry())


def test_the_newest_version_is_the_highest_number_not_the_last_word(bundles):
    assert library(bundles, default_product="tiny").pick().manifest.version == "10"


def test_a_version_can_be_asked_for(bundles):
    assert library(bundles).pick("tiny", "9").manifest.version == "9"


def test_without_a_setting_the_demo_product_is_the_default(bundles, tmp_path):
    shutil.copytree(bundles, tmp_path, dirs_exist_ok=True)
    write_tiny_bundle(tmp_path, product="brushed-plate")

    assert library(tmp_path).default_product == "brushed-plate"


def test_without_the_demo_product_the_first_is_the_default(bundles):
    assert library(bundles).default_product == "second"


@pytest.mark.parametrize("product", ["", "none", "../../etc", "/etc/passwd", "tiny/9", "TINY"])
def test_an_unknown_product_is_refused_without_a_look_at_the_disk(bundles, product):
    with pytest.raises(BundleMissing, match=r"loaded are: second, tiny$"):
        library(bundles).pick(product)


def test_an_unknown_version_is_refused(bundles):
    with pytest.raises(BundleMissing, match="9, 10"):
        library(bundles).pick("tiny", "11")


def test_an_altered_bundle_fails_the_start_and_is_named(bundles, tmp_path):
    shutil.copytree(bundles, tmp_path, dirs_exist_ok=True)
    with (tmp_path / "tiny" / "9" / "locator.onnx").open("ab") as graph:
        graph.write(b"more")

    with pytest.raises(BundleError, match="tiny/9"):
        library(tmp_path)


def test_a_manifest_that_is_no_json_fails_the_start_and_is_named(bundles, tmp_path):
    shutil.copytree(bundles, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tiny" / "9" / "manifest.json").write_text("{")

    with pytest.raises(BundleError, match="tiny/9"):
        library(tmp_path)


def test_a_folder_without_bundles_fails_the_start(tmp_path):
    with pytest.raises(BundleMissing):
        library(tmp_path)


def test_a_default_product_that_is_not_there_fails_the_start(bundles):
    with pytest.raises(BundleMissing, match="absent"):
        library(bundles, default_product="absent")


def test_the_provider_is_the_one_that_runs(bundles):
    bundle = library(bundles, device="cpu").pick()

    assert provider_of(bundle) == "CPUExecutionProvider"
