from __future__ import annotations

import asyncio
import io
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx2
import pytest
import uvicorn

from models.steps.pictures import encode_png
from service.app import create_app
from service.client import AsyncClient, Client
from service.client_calls import (
    AnswerUnreadable,
    Busy,
    DeadlineOver,
    NotReady,
    Problem,
    Retry,
    Unauthorized,
    Unreachable,
)
from service.keys import entry_of, write_entry
from service.settings import Settings

ONCE = Retry(tries=1)
PATIENT = Retry(first_s=1000.0, most_s=1000.0)
HASTY = Retry(tries=50, first_s=0.01, most_s=0.05)


@contextmanager
def listening(app) -> Iterator[str]:
    """A real server for an application in a thread, on a free port."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        (listener,) = server.servers[0].sockets
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def started(bundles):
    """Start services with given settings; each gives its address and its engine."""
    with ExitStack() as stack:

        def start(**settings):
            defaults = {"bundles": bundles, "default_product": "tiny", "threads": 1, "workers": 1}
            app = create_app(Settings(**{**defaults, **settings}))
            return stack.enter_context(listening(app)), app.state.engine

        yield start


@pytest.fixture
def url(started):
    return started()[0]


@contextmanager
def silent_server() -> Iterator[str]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield f"http://127.0.0.1:{silent.getsockname()[1]}"


@contextmanager
def saying(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that reads a request and gives the next answer, whatever it was asked."""
    heads: list[bytes] = []

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                heads.append(connection.recv(1_000_000))
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve)
        serving.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", heads
        serving.join()


def occupy(url: str) -> socket.socket:
    """Take a place with an upload that does not end."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n")
    connection.sendall(b"Content-Length: 99\r\n\r\n?")
    return connection


def wait_until_busy(url: str) -> None:
    while httpx2.post(f"{url}/detect").status_code != 429:
        time.sleep(0.005)


def test_a_detection_is_typed(url, red_square_png):
    with Client(url) as client:
        found = client.detect(red_square_png, n=2, crop_images="png", mm_per_px=0.5)

    (defect,) = found.defects
    assert (found.product, found.version, found.verdict, found.decision) == (
        "tiny",
        "10",
        "ng",
        "ng",
    )
    assert (found.width, found.height) == (128, 96)
    assert defect.box == (40, 20, 12, 10)
    assert defect.polygon.exterior[0] in {(40.0, 20.0), (52.0, 20.0), (52.0, 30.0), (40.0, 30.0)}
    assert defect.area_mm == defect.area_px * 0.25
    assert found.crops[0].image.startswith(b"\x89PNG")
    assert found.raw["id"] == found.id


def test_zones_and_rules_are_sent_as_they_are_written(url, red_square_png):
    rules = [{"label": "pit", "under": {"area_px": 1000}}]

    with Client(url) as client:
        found = client.detect(red_square_png, rules=rules, zones={"look": [], "ignore": []})

    assert (found.verdict, found.tolerated[0].reason) == ("ok", "rule")


def test_a_synthesis_has_its_files_decoded(url, normal_png):
    with Client(url) as client:
        made = client.synthesize(normal_png, count=2, seed=7)

    assert [sample.seed for sample in made.samples] == [7, 8]
    for sample in made.samples:
        assert sample.image.startswith(b"\x89PNG")
        assert sample.mask.startswith(b"\x89PNG")
        assert sample.defects[0].label in ("pit", "scratch")


def test_a_mask_travels_with_its_picture(url, normal_png, tmp_path):
    pixels = pytest.importorskip("numpy").zeros((96, 128), "uint8")
    pixels[40:50, 40:52] = 255
    mask = tmp_path / "mask.png"
    mask.write_bytes(encode_png(pixels))

    with Client(url) as client:
        made = client.synthesize(normal_png, mask, seed=1)

    assert made.samples[0].defects[0].box == (40, 40, 12, 10)


def test_a_zip_is_written_to_a_file_that_appears_whole(url, normal_png, tmp_path):
    with Client(url) as client:
        saved = client.download(tmp_path / "made.zip", normal_png, count=2, seed=7)

    names = zipfile.ZipFile(saved).namelist()
    assert names == [
        "image_0000.png",
        "mask_0000.png",
        "image_0001.png",
        "mask_0001.png",
        "annotations.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["made.zip"]


def test_a_refused_download_leaves_no_file(url, tmp_path):
    with Client(url) as client, pytest.raises(Problem) as refusal:
        client.download(tmp_path / "made.zip", b"no picture")

    assert refusal.value.code == "unsupported_media_type"
    assert list(tmp_path.iterdir()) == []


def test_the_awaited_client_answers_the_same(url, red_square_png, normal_png, tmp_path):
    async def ask():
        async with AsyncClient(url) as client:
            is_ready = await client.is_ready()
            found = await asyncio.gather(*(client.detect(red_square_png) for _ in range(4)))
            made = await client.synthesize(normal_png, seed=7)
            saved = await client.download(tmp_path / "made.zip", normal_png, seed=7)
            with pytest.raises(Problem):
                await client.detect(b"no picture")
        return is_ready, found, made, saved

    is_ready, found, made, saved = asyncio.run(ask())

    with Client(url) as client:
        expected = client.detect(red_square_png)
        same = client.synthesize(normal_png, seed=7)
    assert is_ready
    assert {one.defects for one in found} == {expected.defects}
    assert made.samples == same.samples
    assert zipfile.ZipFile(saved).read("image_0000.png") == made.samples[0].image


def test_a_bad_picture_is_a_problem_with_its_word_and_is_not_tried_again(url):
    with Client(url, retry=PATIENT) as client, pytest.raises(Problem) as refusal:
        client.detect(b"no picture")

    problem = refusal.value
    assert (problem.status, problem.code) == (415, "unsupported_media_type")
    assert problem.detail.startswith("image: ")
    assert len(problem.request_id) == 36


def test_a_picture_that_is_refused_while_it_is_sent_is_a_problem(started):
    url, _ = started(max_bytes=1000)

    with Client(url) as client, pytest.raises(Problem) as refusal:
        client.detect(bytes(20_000_000))

    assert refusal.value.code == "too_large"


def test_a_wrong_key_is_told_apart_and_a_right_one_opens(started, red_square_png):
    url, _ = started(api_keys=write_entry(entry_of("right", "infer")))

    with Client(url, api_key="wrong") as wrong, pytest.raises(Unauthorized):
        wrong.detect(red_square_png)
    with Client(url, api_key="right") as right:
        assert right.detect(red_square_png).verdict == "ng"


def test_a_busy_service_is_asked_again_when_it_said(started, red_square_png):
    url, _ = started(queue_size=0, retry_after_s=1)

    with closing(occupy(url)) as slow, Client(url, retry=HASTY) as client:
        wait_until_busy(url)
        threading.Timer(0.3, slow.close).start()
        started_s = time.monotonic()
        found = client.detect(red_square_png)
        took_s = time.monotonic() - started_s

    assert found.verdict == "ng"
    assert took_s >= 1.0


def test_a_service_that_stays_busy_is_told_as_busy(started, red_square_png):
    url, _ = started(queue_size=0)

    with closing(occupy(url)), Client(url, retry=ONCE) as client:
        wait_until_busy(url)
        with pytest.raises(Busy) as refusal:
            client.detect(red_square_png)

    assert refusal.value.code == "busy"


def test_a_wait_that_would_end_after_the_deadline_is_not_begun(started, red_square_png):
    url, _ = started(queue_size=0, retry_after_s=3600)

    with closing(occupy(url)), Client(url, timeout_s=5.0) as client:
        wait_until_busy(url)
        started_s = time.monotonic()
        with pytest.raises(Busy):
            client.detect(red_square_png)

    assert time.monotonic() - started_s < 4.0


def test_a_stopping_service_is_not_ready(started, red_square_png):
    url, engine = started()
    engine.drain()

    with Client(url, retry=ONCE) as client, pytest.raises(NotReady) as refusal:
        client.detect(red_square_png)

    assert refusal.value.code == "draining"
    with Client(url) as client:
        assert not client.is_ready()


def test_a_deadline_of_the_service_is_a_deadline(started, red_square_png):
    url, _ = started(timeout_s=0.001)

    with Client(url) as client, pytest.raises(DeadlineOver) as refusal:
        client.detect(red_square_png)

    assert refusal.value.status == 504


@pytest.mark.parametrize("is_awaited", [False, True])
def test_a_service_that_says_nothing_is_given_up_at_the_deadline(is_awaited, red_square_png):
    async def ask(url):
        async with AsyncClient(url, timeout_s=0.3) as client:
            await client.detect(red_square_png)

    with silent_server() as url, Client(url, timeout_s=0.3) as client:
        started_s = time.monotonic()
        with pytest.raises(DeadlineOver):
            asyncio.run(ask(url)) if is_awaited else client.detect(red_square_png)

    assert 0.25 < time.monotonic() - started_s < 5.0


def test_an_upload_that_nobody_reads_is_given_up_at_the_deadline():
    with (
        silent_server() as url,
        Client(url, timeout_s=0.3) as client,
        pytest.raises(DeadlineOver),
    ):
        client.detect(bytes(50_000_000))


@pytest.mark.parametrize("is_awaited", [False, True])
def test_a_call_that_has_no_time_is_not_made(is_awaited, red_square_png):
    async def ask(url):
        async with AsyncClient(url) as client:
            await client.detect(red_square_png, timeout_s=0)

    with saying() as (url, heads), Client(url) as client, pytest.raises(DeadlineOver):
        asyncio.run(ask(url)) if is_awaited else client.detect(red_square_png, timeout_s=0)

    assert heads == []


@pytest.mark.parametrize("is_awaited", [False, True])
def test_an_answer_that_is_not_encoded_as_it_says_is_unreadable(is_awaited, red_square_png):
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n"

    async def ask(url):
        async with AsyncClient(url) as client:
            await client.detect(red_square_png)

    with (
        saying(head + b"Connection: close\r\n\r\n{}") as (url, _),
        Client(url) as client,
        pytest.raises(AnswerUnreadable),
    ):
        asyncio.run(ask(url)) if is_awaited else client.detect(red_square_png)


def test_the_loop_goes_on_while_a_file_is_read(url, red_square_png, tmp_path):
    slow = tmp_path / "slow.png"
    os.mkfifo(slow)  # whoever reads it waits for somebody who writes
    writing = threading.Timer(0.2, slow.write_bytes, [red_square_png])

    async def ask():
        async with AsyncClient(url) as client:
            asking = asyncio.create_task(client.detect(slow))
            await asyncio.sleep(0.01)
            is_still_being_read = writing.is_alive()
            return is_still_being_read, await asking

    writing.start()
    is_still_being_read, found = asyncio.run(ask())

    assert is_still_being_read
    assert found.verdict == "ng"


def test_nobody_at_the_address_is_told_when_the_tries_are_over(red_square_png):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"

    with Client(url, retry=Retry(tries=3, first_s=0.01)) as client:
        assert not client.is_ready()
        with pytest.raises(Unreachable):
            client.detect(red_square_png)


def test_a_wrong_address_is_not_tried_again(red_square_png):
    with Client("ftp://127.0.0.1", retry=PATIENT) as client, pytest.raises(Unreachable):
        client.detect(red_square_png)


def test_every_try_has_the_same_key_and_what_is_left_of_the_time(red_square_png):
    busy = b"HTTP/1.1 429 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    broken = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"
    foreign = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"

    with (
        saying(busy, broken, foreign) as (url, heads),
        Client(url, retry=HASTY) as client,
        pytest.raises(AnswerUnreadable),
    ):
        client.detect(red_square_png)

    keys = [header(head, "idempotency-key") for head in heads]
    left_ms = [int(header(head, "x-request-timeout-ms")) for head in heads]
    assert len(set(keys)) == 1
    assert len(keys) == 3
    assert 60_000 >= left_ms[0] > left_ms[1] > left_ms[2]


def header(head: bytes, name: str) -> str:
    lines = io.StringIO(head.split(b"\r\n\r\n")[0].decode("latin-1"))
    found = [line.split(":", 1)[1] for line in lines if line.lower().startswith(f"{name}:")]
    return found[0].strip()


def test_a_refusal_of_somebody_in_between_is_a_problem_too(red_square_png):
    page = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>"

    with saying(page) as (url, _), Client(url) as client, pytest.raises(Problem) as refusal:
        client.detect(red_square_png)

    assert (refusal.value.status, refusal.value.code) == (502, "http_error")


def test_the_clients_files_alone_are_a_whole_client(tmp_path):
    source = Path(__file__).parents[2] / "service"
    for file in [source / "__init__.py", *source.glob("client*.py")]:
        (tmp_path / "service").mkdir(exist_ok=True)
        (tmp_path / "service" / file.name).write_bytes(file.read_bytes())
    code = (
        "import sys, service.client\n"
        "print(*sorted(m for m in sys.modules if m.split('.')[0] in "
        "('service', 'models', 'fastapi', 'numpy', 'pydantic', 'starlette')))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == [
        "service",
        "service.client",
        "service.client_calls",
        "service.client_types",
    ]
