"""New bundles come to a service that is at work: a real process, real sockets, real faults."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.running import Running, red_square_png, running_service
from tests.tiny import break_graph, write_tiny_bundle

PNG = {"Content-Type": "image/png"}
CLIENTS = 4
SWAPS = 20


@pytest.fixture
def folder(tmp_path) -> Path:
    """`tiny` in version 1."""
    write_tiny_bundle(tmp_path)
    return tmp_path


def change(client: httpx2.Client, what: str, version: str) -> httpx2.Response:
    order = {"parameters": {"version": version}}
    return client.post(f"/v2/repository/models/tiny/{what}", json=order)


def version_that_answers(client: httpx2.Client) -> str:
    answer = client.post("/detect", content=red_square_png(), headers=PNG)
    assert answer.status_code == 200, answer.text
    return answer.json()["version"]


def detect_until(stopped: threading.Event, running: Running) -> list[tuple[int, str]]:
    """Status and version of each answer of one client that never stops asking."""
    answers = []
    with running.client() as client:
        while not stopped.is_set():
            answer = client.post("/detect", content=red_square_png(), headers=PNG)
            answers.append((answer.status_code, answer.json().get("version", answer.text)))
    return answers


@pytest.mark.slow
def test_swapping_back_and_forth_under_load_drops_no_request(folder):
    write_tiny_bundle(folder, version="2")
    stopped = threading.Event()

    with (
        running_service(folder, queue_size=64) as running,
        running.client() as operator,
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        asking = [clients.submit(detect_until, stopped, running) for _ in range(CLIENTS)]
        swapped = []
        for _ in range(SWAPS):
            for what, expected in (("unload", "1"), ("load", "2")):
                assert change(operator, what, "2").status_code == 200
                swapped.append(version_that_answers(operator) == expected)
        stopped.set()
        answers = [answer for one in asking for answer in one.result()]

    assert all(swapped)
    assert len(answers) > SWAPS
    assert set(answers) == {(200, "1"), (200, "2")}


@pytest.mark.slow
def test_a_version_is_opened_anew_in_its_place_without_a_dropped_request(folder):
    stopped = threading.Event()

    with (
        running_service(folder, queue_size=64) as running,
        running.client() as operator,
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        asking = [clients.submit(detect_until, stopped, running) for _ in range(CLIENTS)]
        statuses = {change(operator, "load", "1").status_code for _ in range(SWAPS)}
        stopped.set()
        answers = [answer for one in asking for answer in one.result()]

    assert statuses == {200}
    assert set(answers) == {(200, "1")}


@pytest.mark.slow
def test_a_service_killed_in_the_middle_of_a_swap_serves_a_good_bundle_again(folder):
    write_tiny_bundle(folder, version="2")

    for wait_s in (0.0, 0.02, 0.1):
        with running_service(folder) as running, ThreadPoolExecutor(1) as background:
            swapping = background.submit(swap_until_it_ends, running)
            time.sleep(wait_s)
            running.process.kill()
            assert running.process.wait() == -9
            swapping.result()

    with running_service(folder) as running, running.client() as client:
        assert version_that_answers(client) == "2"


def swap_until_it_ends(running: Running) -> int:
    """How many changes a service answered before its connection broke."""
    changes = 0
    with running.client() as client:
        try:
            while True:
                assert change(client, ("unload", "load")[changes % 2], "2").status_code == 200
                changes += 1
        except httpx2.TransportError:
            return changes


@pytest.mark.slow
def test_a_watching_service_killed_while_a_bundle_arrives_serves_and_then_takes_it(
    folder, tmp_path
):
    whole = write_tiny_bundle(tmp_path / ".elsewhere", version="2")
    arriving = folder / "tiny" / "2"
    arriving.mkdir()
    shutil.copyfile(whole / "manifest.json", arriving / "manifest.json")
    with running_service(folder, watch_s=0.05) as running:
        running.process.kill()

    with running_service(folder, watch_s=0.05) as running, running.client() as client:
        at_first = version_that_answers(client)
        for file in whole.iterdir():
            shutil.copyfile(file, arriving / file.name)
        deadline_s = time.monotonic() + 30
        while version_that_answers(client) != "2" and time.monotonic() < deadline_s:
            time.sleep(0.02)

        assert at_first == "1"
        assert version_that_answers(client) == "2"


@pytest.mark.slow
def test_a_bundle_that_fails_when_it_runs_is_refused_while_the_good_one_serves(folder):
    break_graph(write_tiny_bundle(folder, version="3"))
    shutil.move(folder / "tiny" / "3", folder / ".3")

    with running_service(folder) as running, running.client() as client:
        shutil.move(folder / ".3", folder / "tiny" / "3")
        refusal = change(client, "load", "3")
        index = client.get("/v2/repository/index").json()

        assert (refusal.status_code, refusal.json()["code"]) == (422, "bundle_refused")
        assert [row["state"] for row in index] == ["READY", "UNAVAILABLE"]
        assert str(folder) not in refusal.text + str(index)
        assert version_that_answers(client) == "1"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, a disk that is full")
def test_a_full_disk_under_the_log_stops_neither_answers_nor_swaps(folder):
    write_tiny_bundle(folder, version="2")

    with (
        Path("/dev/full").open("wb") as full,
        running_service(folder, stdout=full) as running,
        running.client() as client,
    ):
        before = version_that_answers(client)
        unloaded = change(client, "unload", "2")

        assert unloaded.status_code == 200
        assert (before, version_that_answers(client)) == ("2", "1")
