from __future__ import annotations

import json
import logging
import re
import socket
import time

import pytest

from service.extras import SettingRefused
from service.records.recording import SHELF_BYTES, Recording, RecordsOff, open_places
from service.records.replays import Claim, Kept
from service.settings import Settings
from service.telemetry import Telemetry
from tests.places import Postgres, Receiver, record, wait_for

PNG = {"Content-Type": "image/png"}


def detect(client, picture: bytes, query: str = "", **headers: str):
    return client.post(f"/detect{query}", content=picture, headers=PNG | headers)


def recorded(client, count: int = 1) -> list[dict]:
    """The records, when so many are written."""
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        answer = client.get("/inspections")
        if answer.status_code == 200 and len(answer.json()["inspections"]) == count:
            return answer.json()["inspections"]
        time.sleep(0.05)
    raise AssertionError(f"no {count} records: {answer.text}")


def value_of(client, metric: str) -> float:
    found = re.search(rf"^{re.escape(metric)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    assert found, metric
    return float(found[1])


def recording_of(**settings: str) -> Recording:
    asked = Settings(**settings)
    return Recording(open_places(asked), asked, Telemetry())


@pytest.fixture
def sqlite(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'records.db'}"


def test_without_places_nothing_is_recorded():
    recording = recording_of()

    recording.note(record())

    assert not recording.is_on
    with pytest.raises(RecordsOff):
        recording.log()
    recording.close()


def test_an_answer_becomes_a_row(serve, sqlite, red_square_png):
    client = serve(database=sqlite)
    answer = detect(client, red_square_png, "?n=2&part_id=A-17&recipe_id=r").json()

    (row,) = recorded(client)

    same = ("product", "version", "part_id", "job_id", "recipe_id", "verdict", "decision")
    assert {name: row[name] for name in same} == {name: answer[name] for name in same}
    assert row["request_id"] == answer["id"]
    assert row["defects"] == answer["defects"]
    assert row["parameters"] == {"n": 2}
    assert (row["image"]["width"], row["image"]["height"]) == (128, 96)
    assert len(row["image"]["sha256"]) == len(row["bundle"]) == 64
    assert row["timings_ms"].keys() == answer["timings_ms"].keys()


def test_what_failed_or_was_replayed_or_forged_is_no_inspection(
    serve, sqlite, red_square_png, normal_png
):
    client = serve(database=sqlite)
    detect(client, red_square_png[:50])
    client.post("/synthesize", content=normal_png, headers=PNG)
    for _ in range(2):
        detect(client, red_square_png, **{"Idempotency-Key": "k"})

    assert len(recorded(client)) == 1


def test_rows_survive_a_restart_and_so_do_kept_answers(serve, sqlite, red_square_png):
    key = {"Idempotency-Key": "k"}
    first = serve(database=sqlite)
    answer = detect(first, red_square_png, **key)
    first.__exit__(None, None, None)

    second = serve(database=sqlite)
    again = detect(second, red_square_png, **key)

    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.content == answer.content
    assert len(recorded(second)) == 1


def test_a_database_that_cannot_be_opened_breaks_no_answer(serve, tmp_path, red_square_png):
    client = serve(database=f"sqlite:///{tmp_path}/missing/records.db")

    answer = detect(client, red_square_png)
    log = client.get("/inspections")

    assert answer.status_code == 200
    assert (log.status_code, log.json()["code"]) == (503, "records_unavailable")
    assert "missing" not in log.text
    (tmp_path / "missing").mkdir()
    assert recorded(client)[0]["request_id"] == answer.json()["id"]


def test_a_database_that_swallows_every_word_holds_up_no_request(serve, red_square_png):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes a call and says nothing
        client = serve(database=f"postgresql://x@127.0.0.1:{silent.getsockname()[1]}/x")
        within = {"X-Request-Timeout-Ms": "2500"}

        answers = [
            detect(client, red_square_png, **within, **{"Idempotency-Key": f"{i}"})
            for i in range(3)
        ]

    assert [answer.status_code for answer in answers] == [200] * 3


def test_rows_beyond_the_bound_are_dropped_and_counted(serve, tmp_path, red_square_png):
    client = serve(database=f"sqlite:///{tmp_path}/missing/records.db", outbox_bytes=0)

    statuses = [detect(client, red_square_png).status_code for _ in range(2)]

    assert statuses == [200, 200]
    dropped = 'flawsmith_outbox_dropped_total{place="database",reason="full"}'
    assert value_of(client, dropped) == 2


def test_an_answer_too_long_for_a_database_is_not_sent_there(sqlite):
    recording = recording_of(database=sqlite)
    long, short = (b"x" * size for size in (SHELF_BYTES + 1, SHELF_BYTES))

    for key, body in (("long", long), ("short", short)):
        recording.keep(Kept(Claim(key, "request"), "application/zip", body, time.time() + 60))
    wait_for(lambda: recording.log().find_answer("short") is not None)

    assert recording.log().find_answer("long") is None
    recording.close()


@pytest.mark.slow
def test_a_postgres_that_goes_away_and_returns_costs_no_answer_and_no_row(
    serve, postgres: Postgres, red_square_png
):
    client = serve(database=postgres.new_database())
    answers = [detect(client, red_square_png)]
    recorded(client)

    postgres.stop()
    answers += [detect(client, red_square_png, **{"Idempotency-Key": f"{i}"}) for i in range(3)]
    wait_for(lambda: value_of(client, 'flawsmith_outbox_away{place="database"}') == 1)
    log = client.get("/inspections")
    postgres.start()

    assert [answer.status_code for answer in answers] == [200] * 4
    assert (log.status_code, log.json()["code"]) == (503, "records_unavailable")
    assert "Retry-After" in log.headers
    rows = recorded(client, 4)
    assert {row["request_id"] for row in rows} == {answer.json()["id"] for answer in answers}
    assert value_of(client, 'flawsmith_outbox_away{place="database"}') == 0


def test_an_answer_becomes_a_signed_message(serve, red_square_png):
    receiver = Receiver()
    client = serve(webhook_url=receiver.url, webhook_secret="whsec_" + "c2VjcmV0" * 4)

    answer = detect(client, red_square_png, "?part_id=A-17").json()
    wait_for(lambda: bool(receiver.got))
    receiver.stop()

    ((_, body),) = receiver.got
    data = json.loads(body)["data"]
    assert (data["part_id"], data["request_id"]) == ("A-17", answer["id"])
    assert data["defects"] == answer["defects"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"webhook_url": "http://h/x"}, "SERVICE_WEBHOOK_SECRET"),
        ({"webhook_url": "ftp://h", "webhook_secret": "x"}, "SERVICE_WEBHOOK_URL"),
        ({"mqtt_url": "http://h"}, "SERVICE_MQTT_URL"),
        ({"mqtt_url": "mqtt://h", "mqtt_topic": "a/{part_id}"}, "SERVICE_MQTT_TOPIC"),
        ({"database": "oracle://h"}, "SERVICE_DATABASE"),
    ],
)
def test_a_place_that_cannot_be_one_stops_the_start_by_its_settings_name(settings, named):
    with pytest.raises(SettingRefused, match=named):
        open_places(Settings(**settings))


def test_no_secret_is_told_in_logs_or_answers(serve, red_square_png, caplog):
    client = serve(
        webhook_url="http://127.0.0.1:9/?token=confidential",
        webhook_secret="whsec_" + "c2VjcmV0" * 4,
        mqtt_url="mqtt://line:confidential@127.0.0.1:9",
        database="postgresql://line:confidential@127.0.0.1:9/x",
    )

    with caplog.at_level(logging.DEBUG):
        answers = [detect(client, red_square_png), client.get("/inspections")]
        for place in ("webhook", "mqtt", "database"):
            away = f'flawsmith_outbox_away{{place="{place}"}}'
            wait_for(lambda away=away: value_of(client, away) == 1)

    told = " ".join([caplog.text, *(answer.text for answer in answers)])
    assert "is away" in told
    assert "confidential" not in told
    assert "c2VjcmV0" not in told
