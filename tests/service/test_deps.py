from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from fastapi import Depends
from fastapi.dependencies.models import Dependant
from starlette.requests import ClientDisconnect, Request

from service.compute.tickets import Ticket
from service.deps import Visit, require_role
from service.keys import entry_of, new_key, write_entry
from service.routes import detection, health, inspections, models, repository, synthesis
from service.telemetry import Trace

POST = {"headers": {"Content-Type": "image/png"}}


@pytest.fixture
def busy(serve):
    """Applications whose only worker is taken until the test ends."""
    release = threading.Event()

    def start(**settings):
        client = serve(**settings)
        engine = client.app.state.engine
        client.portal.start_task_soon(engine.run, release.wait, Ticket(), Trace("occupant"))
        while "flawsmith_running 1.0" not in client.get("/metrics").text:
            time.sleep(0.005)
        return client

    yield start
    release.set()


INFER, ADMIN = new_key(), new_key()
KEYS = f"{write_entry(entry_of(INFER, 'infer'))},{write_entry(entry_of(ADMIN, 'admin'))}"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {INFER}"},
        {"Authorization": f"Bearer {KEYS}"},
        {"X-API-Key": ""},
        {"X-API-Key": INFER[:-1]},
        {"X-API-Key": "\xe4".encode("latin-1")},
    ],
    ids=["none", "wrong", "basic", "entries", "empty", "cut short", "no ASCII"],
)
@pytest.mark.parametrize("path", ["/detect", "/synthesize"])
def test_without_a_fitting_key_nothing_is_done(serve, red_square_png, path, headers):
    client = serve(api_keys=KEYS)

    refusal = client.post(path, files={"image": red_square_png}, headers=headers)

    assert (refusal.status_code, refusal.json()["code"]) == (401, "unauthorized")
    assert refusal.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {ADMIN}"},
        {"X-API-Key": INFER},
        {"Authorization": "Bearer other", "X-API-Key": INFER},
    ],
    ids=["an admin", "a header", "one of two"],
)
def test_any_configured_key_opens(serve, red_square_png, headers):
    client = serve(api_keys=KEYS)

    answer = client.post("/detect", files={"image": red_square_png}, headers=headers)

    assert answer.status_code == 200


def test_the_models_ask_for_a_key_too(serve):
    assert serve(api_keys=KEYS).get("/v2/models/tiny").status_code == 401


@pytest.fixture
def guarded(serve):
    """An application with a route that needs an admin."""

    def start(**settings):
        client = serve(**settings)
        needs = [Depends(require_role("admin"))]
        client.app.add_api_route("/secret", lambda: "told", dependencies=needs)
        return client

    return start


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 401), ({"X-API-Key": INFER}, 403), ({"X-API-Key": ADMIN}, 200)]
)
def test_a_key_opens_what_its_role_says(guarded, headers, status):
    answer = guarded(api_keys=KEYS).get("/secret", headers=headers)

    assert answer.status_code == status
    if status == 403:
        assert answer.json()["code"] == "forbidden"


def test_where_no_keys_are_set_everything_is_open(guarded):
    assert guarded().get("/secret").json() == "told"


@pytest.mark.parametrize("path", ["/detect", "/synthesize"])
def test_a_page_of_a_stranger_has_no_picture_looked_at(client, red_square_png, path):
    headers = POST["headers"] | {"Origin": "http://stranger.example"}

    refusal = client.post(path, content=red_square_png, headers=headers)

    assert (refusal.status_code, refusal.json()["code"]) == (403, "forbidden")
    assert "SERVICE_CORS_ORIGINS" in refusal.json()["detail"]


def test_a_request_whose_deadline_is_over_in_the_queue_is_answered_504(busy, red_square_png):
    client = busy()
    headers = POST["headers"] | {"X-Request-Timeout-Ms": "80"}
    started_s = time.monotonic()

    refusal = client.post("/detect", content=red_square_png, headers=headers)

    assert (refusal.status_code, refusal.json()["code"]) == (504, "deadline_exceeded")
    assert 0.07 <= time.monotonic() - started_s < 5.0


def test_the_services_own_limit_holds_for_a_client_that_asks_for_more(busy, red_square_png):
    client = busy(timeout_s=0.08)
    headers = POST["headers"] | {"X-Request-Timeout-Ms": "60000"}

    assert client.post("/detect", content=red_square_png, headers=headers).status_code == 504


@pytest.mark.parametrize("timeout_ms", ["0", "-5", "soon", "NaN", "1.5", "9" * 400])
def test_a_deadline_that_is_no_number_of_milliseconds_is_refused(
    client, red_square_png, timeout_ms
):
    headers = POST["headers"] | {"X-Request-Timeout-Ms": timeout_ms}

    refusal = client.post("/detect", content=red_square_png, headers=headers)

    assert refusal.status_code == 422
    assert "X-Request-Timeout-Ms" in refusal.json()["detail"]


@pytest.mark.parametrize("path", ["/detect?n=1&n=2", "/synthesize?seed=1&seed=1"])
def test_a_parameter_that_is_given_twice_is_refused(client, red_square_png, path):
    refusal = client.post(path, content=red_square_png, **POST)

    assert (refusal.status_code, refusal.json()["code"]) == (422, "invalid_parameter")
    assert "twice" in refusal.json()["detail"]


def test_a_full_queue_is_answered_429_at_once(busy, red_square_png):
    client = busy(queue_size=0)
    guest = client.portal.call(enter, client.app.state.engine)

    refusal = client.post("/detect", content=red_square_png, **POST)

    assert (refusal.status_code, refusal.json()["code"]) == (429, "busy")
    assert int(refusal.headers["retry-after"]) >= 1
    client.portal.call(guest.leave)


class Guest:
    """Somebody who has a place and keeps it."""

    def __init__(self, engine, lane):
        self.stay = engine.visit(lane)
        self.ticket = self.stay.__enter__()

    def leave(self):
        self.stay.__exit__(None, None, None)


async def enter(engine, lane="detection"):
    return Guest(engine, lane)


def test_a_picture_that_does_not_fit_beside_others_is_refused_unread(serve, red_square_png):
    client = serve(max_decoded_bytes=96 * 128 * 3)
    engine = client.app.state.engine
    guest = client.portal.call(enter, engine)
    client.portal.call(engine.load, guest.ticket, 1)

    for path in ("/detect", "/synthesize"):
        refusal = client.post(path, content=red_square_png, **POST)
        assert (refusal.status_code, refusal.json()["code"]) == (429, "busy")
        assert int(refusal.headers["retry-after"]) >= 1
    client.portal.call(guest.leave)

    assert client.post("/detect", content=red_square_png, **POST).status_code == 200


def test_a_detection_is_let_in_while_bulk_work_has_all_its_places(serve, red_square_png):
    client = serve(queue_size=0)
    guest = client.portal.call(enter, client.app.state.engine, "bulk")

    assert client.post("/synthesize", content=red_square_png, **POST).status_code == 429
    assert client.post("/detect", content=red_square_png, **POST).status_code == 200
    client.portal.call(guest.leave)


def test_a_draining_service_is_answered_503(client, red_square_png):
    client.app.state.engine.drain()

    refusal = client.post("/detect", content=red_square_png, **POST)

    assert (refusal.status_code, refusal.json()["code"]) == (503, "draining")
    assert "retry-after" in refusal.headers


def test_a_refused_request_gives_its_place_back(serve, red_square_png):
    client = serve(queue_size=0)

    for _ in range(3):
        assert client.post("/detect?n=0", content=red_square_png, **POST).status_code == 422
        assert client.post("/detect", content=b"no image", **POST).status_code == 415

    assert client.post("/detect", content=red_square_png, **POST).status_code == 200


@pytest.fixture
def leaver(client):
    """A visit whose client has sent everything and hangs up when it is told to."""
    leaves = threading.Event()

    async def receive():
        while not leaves.is_set():
            await asyncio.sleep(0.005)
        return {"type": "http.disconnect"}

    scope = {"type": "http", "app": client.app, "headers": []}
    request = Request(scope, receive)
    return Visit(request, request.app.state.services, Trace("leaver"), 60.0, Ticket()), leaves


def test_a_client_that_leaves_the_queue_is_never_served(busy, leaver):
    done: list[str] = []
    client = busy()
    visit = replace(leaver[0], services=client.app.state.services)
    leaver[1].set()

    with pytest.raises(ClientDisconnect):
        client.portal.call(visit.run, lambda: done.append("late"))

    assert done == []
    assert "flawsmith_queued 0.0" in client.get("/metrics").text


class Work:
    """Something with a picture in it."""

    def fail(self):
        raise KeyError("fails")


def test_work_that_failed_is_let_go_of_without_the_garbage_collector(client, leaver):
    async def journey():
        work = Work()
        with pytest.raises(KeyError):
            await leaver[0].run(work.fail)
        return weakref.ref(work)

    gc.collect()
    gc.disable()
    try:
        work = client.portal.call(journey)
        assert work() is None
    finally:
        gc.enable()


def test_a_visit_has_time_until_only_the_asked_share_is_left(leaver):
    visit, _ = leaver
    visit.trace.started_s = time.perf_counter() - 40.0

    assert visit.has_time(0.3)
    assert not visit.has_time(0.4)


def test_a_visit_that_was_given_up_is_not_asked_for_time(leaver):
    visit, _ = leaver
    visit.ticket.end()

    with pytest.raises(ClientDisconnect):
        visit.has_time(0.3)


@pytest.mark.parametrize("routes", [detection, health, inspections, models, repository, synthesis])
def test_nothing_that_a_route_asks_for_is_called_in_a_thread(routes):
    asked = [one for route in routes.router.routes for one in called_for(route.dependant)]

    assert asked
    assert [one for one in asked if not is_awaited(one)] == []


def called_for(dependant: Dependant) -> Iterator[Callable[..., object]]:
    """The route's function and all that is called before it."""
    yield dependant.call
    for one in dependant.dependencies:
        yield from called_for(one)


def is_awaited(call: Callable[..., object]) -> bool:
    function = call if inspect.isroutine(call) else type(call).__call__
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
