from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import time
import weakref
from concurrent.futures.thread import _global_shutdown_lock

import psutil
import pytest
from prometheus_client import generate_latest

from models.bundle import SHIPPED, find_bundle
from models.errors import BundleError, BundleMissing
from service.bundles.library import ProductNeeded, open_library, provider_of
from service.bundles.replicas import BundleRefused
from service.bundles.shelf import Standing
from service.settings import Settings
from service.telemetry import Telemetry
from tests.tiny import break_graph, write_tiny_bundle


def library(bundles, telemetry=None, **settings):
    settings = Settings(bundles=bundles, threads=1, **settings)
    return open_library(settings, telemetry or Telemetry())


@pytest.fixture
def folder(tmp_path):
    """`tiny` in version 1, a folder that a test may change."""
    write_tiny_bundle(tmp_path)
    return tmp_path


def loads(library, product="tiny", version=None):
    return asyncio.run(library.load(product, version))


def unloads(library, product="tiny", version=None):
    return asyncio.run(library.unload(product, version))


def looks(library, times=1):
    for _ in range(times):
        asyncio.run(library.refresh())


def rows(library):
    return asyncio.run(library.index())


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


def test_a_new_version_answers_who_names_none_and_the_old_one_stays(folder):
    opened = library(folder)
    write_tiny_bundle(folder, version="2")

    told = loads(opened)

    assert told == [Standing("tiny", "2", "READY")]
    assert opened.pick().manifest.version == "2"
    assert opened.pick("tiny", "1").manifest.version == "1"


def test_a_version_is_loaded_by_name_and_an_older_one_speaks_for_nobody(folder):
    opened = library(folder)
    for version in ("0", "2"):
        write_tiny_bundle(folder, version=version)

    loads(opened, version="0")

    assert opened.versions() == {"tiny": ["0", "1"]}
    assert opened.pick().manifest.version == "1"


def test_unloading_the_newest_goes_back_to_the_one_before(folder):
    write_tiny_bundle(folder, version="2")
    opened = library(folder)

    unloads(opened, version="2")

    assert opened.pick().manifest.version == "1"
    assert rows(opened)[1] == Standing("tiny", "2", "UNAVAILABLE", "unloaded")


def test_a_product_is_unloaded_with_all_its_versions(folder):
    for version in ("1", "2"):
        write_tiny_bundle(folder, product="other", version=version)
    opened = library(folder, default_product="tiny")

    unloads(opened, "other")

    assert opened.versions() == {"tiny": ["1"]}


@pytest.mark.parametrize("version", [None, "1"])
def test_the_default_products_last_version_cannot_be_unloaded(folder, version):
    opened = library(folder)

    with pytest.raises(ProductNeeded):
        unloads(opened, version=version)

    assert opened.pick().manifest.version == "1"


@pytest.mark.parametrize(("product", "version"), [("../tiny", None), ("tiny", "../1"), ("", "")])
def test_nothing_but_a_folder_of_the_bundles_can_be_loaded(folder, product, version):
    opened = library(folder)

    with pytest.raises(BundleMissing):
        loads(opened, product, version)
    with pytest.raises(BundleMissing):
        unloads(opened, product, version)


def alter(bundle):
    with (bundle / "segmenter.onnx").open("r+b") as graph:
        graph.seek(20)
        graph.write(b"?")


def truncate(bundle):
    """What a full disk leaves of a copy."""
    whole = (bundle / "locator.onnx").read_bytes()
    (bundle / "locator.onnx").write_bytes(whole[: len(whole) // 2])


def lose_a_file(bundle):
    (bundle / "mask_generator.onnx").unlink()


def lose_the_manifest(bundle):
    (bundle / "manifest.json").unlink()


def come_from_the_future(bundle):
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(
        text.replace('"schema_version": 1', '"schema_version": 2')
    )


HARM = {
    alter: "segmenter.onnx is not the file that was sealed",
    truncate: "locator.onnx is not the file that was sealed",
    lose_a_file: "mask_generator.onnx is missing",
    lose_the_manifest: "no manifest.json",
    come_from_the_future: "schema 2",
    break_graph: "segmenter.onnx",
}


@pytest.mark.parametrize("harm", HARM)
def test_a_bad_bundle_replaces_nothing_and_the_index_says_why(folder, harm):
    telemetry = Telemetry()
    opened = library(folder, telemetry)
    harm(write_tiny_bundle(folder, version="2"))

    with pytest.raises(BundleRefused):
        loads(opened)

    assert opened.pick().manifest.version == "1"
    good, bad = rows(opened)
    assert (good.state, good.reason) == ("READY", "")
    assert bad.state == "UNAVAILABLE"
    assert HARM[harm] in bad.reason
    assert str(folder) not in bad.reason
    failures = b'flawsmith_bundle_load_failures_total{product="tiny"} 1.0'
    assert failures in generate_latest(telemetry.registry)


def test_a_loaded_version_whose_files_were_altered_serves_on_as_it_was_opened(folder):
    opened = library(folder)
    before = opened.pick()
    alter(folder / "tiny" / "1")

    with pytest.raises(BundleRefused):
        loads(opened)

    assert opened.pick() is before
    (row,) = rows(opened)
    assert row.state == "READY"
    assert "segmenter.onnx" in row.reason


def test_the_metric_names_what_is_loaded_and_nothing_else(folder):
    telemetry = Telemetry()
    write_tiny_bundle(folder, version="2")
    opened = library(folder, telemetry)

    unloads(opened, version="1")

    text = generate_latest(telemetry.registry).decode()
    assert 'version="2"} 1.0' in text
    assert 'version="1"' not in text


def test_loads_of_the_same_product_at_once_come_one_after_the_other(folder):
    opened = library(folder)
    for version in ("2", "3"):
        write_tiny_bundle(folder, version=version)

    async def at_once():
        await asyncio.gather(*(opened.load("tiny", v) for v in ("2", "3", "2", "1", "3")))

    asyncio.run(at_once())

    assert opened.versions() == {"tiny": ["1", "2", "3"]}


def test_a_load_does_not_hold_up_the_event_loop(folder):
    opened = library(folder)
    turns = 0

    async def count_turns():
        nonlocal turns
        loading = asyncio.ensure_future(opened.load("tiny"))
        while not loading.done():
            await asyncio.sleep(0)
            turns += 1

    asyncio.run(count_turns())

    assert turns > 100


def test_an_unloaded_bundle_is_freed_when_its_last_request_lets_go(folder):
    write_tiny_bundle(folder, version="2")
    opened = library(folder)
    in_flight = opened.pick("tiny", "2")
    graph = weakref.ref(in_flight.detector.segmenter.graph)

    unloads(opened, version="2")
    is_kept = graph() is not None
    del in_flight

    assert is_kept
    assert graph() is None


def test_a_bundle_may_be_freed_in_the_middle_of_any_executors_submit(folder):
    write_tiny_bundle(folder, version="2")
    opened = library(folder)
    held = [opened.pick("tiny", "2")]
    unloads(opened, version="2")

    def let_go():
        with _global_shutdown_lock:  # as the garbage collector may find it
            held.clear()

    thread = threading.Thread(target=let_go, daemon=True)
    thread.start()
    thread.join(10.0)

    assert not thread.is_alive()


@pytest.mark.slow
def test_the_memory_of_real_bundles_does_not_grow_with_loads_and_is_returned():
    product = "ball-screw"
    opened = library(SHIPPED, default_product="brushed-plate", device="cpu")
    unloads(opened, product)
    gc.collect()

    held = []
    for _ in range(3):
        loads(opened, product)
        loaded = psutil.Process().memory_info().rss
        unloads(opened, product)
        time.sleep(0.2)
        held.append((loaded, psutil.Process().memory_info().rss))

    returned = [loaded - left for loaded, left in held]
    files = sum(file.stat().st_size for file in find_bundle(SHIPPED, product).iterdir())
    assert min(returned) > files
    assert held[-1][1] < 1.05 * held[0][1]


def test_a_replica_is_opened_through_what_prepares_it(folder):
    prepared = []

    def prepare(bundle):
        prepared.append(bundle.manifest.version)
        return bundle

    open_library(Settings(bundles=folder, threads=1), Telemetry(), prepare)

    assert prepared == ["1"]


def test_a_look_at_the_folder_loads_a_new_version_once_it_has_settled(folder):
    opened = library(folder, watch_s=1)
    write_tiny_bundle(folder, version="2")

    looks(opened)
    at_first = opened.versions()
    looks(opened)

    assert at_first == {"tiny": ["1"]}
    assert opened.pick().manifest.version == "2"


def test_a_half_copied_bundle_is_left_alone_then_noted_and_loaded_when_it_is_whole(
    folder, tmp_path
):
    telemetry = Telemetry()
    opened = library(folder, telemetry, watch_s=1)
    whole = write_tiny_bundle(tmp_path / ".elsewhere", version="2")
    arriving = folder / "tiny" / "2"
    arriving.mkdir()
    for name in ("manifest.json", "locator.onnx"):
        shutil.copyfile(whole / name, arriving / name)

    looks(opened, 3)
    half = rows(opened)[1]
    shutil.copytree(whole, arriving, dirs_exist_ok=True)
    looks(opened, 2)

    assert half.state == "UNAVAILABLE"
    assert "is missing" in half.reason
    assert opened.pick().manifest.version == "2"
    tried_once = b'flawsmith_bundle_load_failures_total{product="tiny"} 1.0'
    assert tried_once in generate_latest(telemetry.registry)


def test_a_watched_folder_with_a_bad_bundle_serves_its_good_ones_from_the_start(folder):
    alter(write_tiny_bundle(folder, version="2"))

    opened = library(folder, watch_s=1)

    assert opened.versions() == {"tiny": ["1"]}
    assert rows(opened)[1].state == "UNAVAILABLE"


def test_a_watched_folder_whose_default_product_is_bad_fails_the_start(folder):
    alter(write_tiny_bundle(folder, product="brushed-plate"))

    with pytest.raises(BundleMissing, match="brushed-plate"):
        library(folder, watch_s=1)


def test_a_version_whose_folder_is_gone_is_unloaded_at_the_second_look(folder):
    newer = write_tiny_bundle(folder, version="2")
    opened = library(folder, watch_s=1)
    shutil.rmtree(newer)

    looks(opened)
    at_first = opened.versions()
    looks(opened)

    assert at_first == {"tiny": ["1", "2"]}
    assert opened.versions() == {"tiny": ["1"]}


def test_a_folder_that_returns_is_loaded_again(folder, tmp_path):
    newer = write_tiny_bundle(folder, version="2")
    opened = library(folder, watch_s=1)
    newer.rename(tmp_path / ".aside")
    looks(opened, 2)
    (tmp_path / ".aside").rename(newer)

    looks(opened, 2)

    assert opened.pick().manifest.version == "2"


def test_the_default_products_last_version_outlives_its_folder(folder):
    write_tiny_bundle(folder, product="other")
    opened = library(folder, watch_s=1, default_product="tiny")
    shutil.rmtree(folder / "tiny")

    looks(opened, 3)

    assert opened.pick().manifest.product == "tiny"
    assert Standing("tiny", "1", "READY", "its folder is gone") in rows(opened)


def test_of_a_default_product_whose_folder_is_gone_the_newest_version_stays(folder):
    write_tiny_bundle(folder, product="other")
    for version in ("2", "9", "10", "11"):
        write_tiny_bundle(folder, version=version)
    opened = library(folder, watch_s=1, default_product="tiny")
    shutil.rmtree(folder / "tiny")

    looks(opened, 2)

    assert opened.versions()["tiny"] == ["11"]


def test_an_empty_folder_is_one_that_went_away_and_unloads_nothing(folder):
    write_tiny_bundle(folder, product="other")
    opened = library(folder, watch_s=1)
    for product in ("tiny", "other"):
        shutil.rmtree(folder / product)

    looks(opened, 3)

    assert opened.versions() == {"other": ["1"], "tiny": ["1"]}


def test_what_was_unloaded_by_hand_stays_unloaded_until_it_is_asked_for(folder):
    write_tiny_bundle(folder, version="2")
    opened = library(folder, watch_s=1)
    unloads(opened, version="2")

    looks(opened, 3)
    while_watched = opened.versions()
    loads(opened, version="2")

    assert while_watched == {"tiny": ["1"]}
    assert opened.versions() == {"tiny": ["1", "2"]}


def test_a_bundle_that_was_resealed_in_its_place_is_swapped(folder):
    opened = library(folder, watch_s=1)
    before = opened.pick()
    shutil.rmtree(folder / "tiny" / "1")
    write_tiny_bundle(folder, locator="peaks")

    looks(opened, 2)

    assert opened.pick() is not before
