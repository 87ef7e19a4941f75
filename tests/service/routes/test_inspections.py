from __future__ import annotations

import socket

import pytest

from service.keys import entry_of, new_key, write_entry
from tests.places import inspection


@pytest.fixture
def client(serve, tmp_path):
    return serve(database=f"sqlite:///{tmp_path / 'records.db'}")


@pytest.fixture
def rows(client):
    """Five records, oldest first."""
    made = [inspection(part_id=f"A-{i % 2}", verdict=("ok", "ng")[i % 2]) for i in range(5)]
    made.sort(key=lambda row: row.id)
    client.app.state.services.recording.log().write(made)
    return made


def test_pages_hold_every_record_once_newest_first(client, rows):
    asked, seen = {"limit": 2}, []
    while True:
        page = client.get("/inspections", params=asked).json()
        seen += [row["id"] for row in page["inspections"]]
        if page["next"] is None:
            break
        asked["after"] = page["next"]

    assert seen == [row.id for row in reversed(rows)]


@pytest.mark.usefixtures("rows")
def test_records_are_found_by_part_verdict_and_time(client):
    by_part = client.get("/inspections", params={"part_id": "A-1", "verdict": "ng"}).json()
    before = client.get("/inspections", params={"until": "2001-01-01T00:00:00+02:00"}).json()

    assert {row["part_id"] for row in by_part["inspections"]} == {"A-1"}
    assert len(by_part["inspections"]) == 2
    assert before["inspections"] == []


def test_one_record_is_found_by_its_id(client, rows):
    found = client.get(f"/inspections/{rows[0].id}")
    missing = client.get(f"/inspections/{inspection().id}")

    assert found.json() == rows[0].model_dump(mode="json")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "1001"),
        ("after", "'; DROP TABLE inspections"),
        ("since", "2026-01-01T00:00:00"),
        ("since", "0001-01-01T00:00:00+14:00"),
        ("verdict", "perhaps"),
        ("product", "a\x00b"),
        ("request_id", "\x00"),
        ("offset", "3"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_by_name(client, name, value):
    answer = client.get("/inspections", params={name: value})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert answer.json()["detail"].startswith(name)


@pytest.mark.parametrize("id", ["x", "%00", "a" * 36])
def test_an_id_that_is_none_is_refused(client, id):
    assert client.get(f"/inspections/{id}").status_code == 422


def test_records_are_for_those_who_have_a_key(serve, tmp_path):
    key = new_key()
    entry = write_entry(entry_of(key, "infer"))
    client = serve(api_keys=entry, database=f"sqlite:///{tmp_path / 'records.db'}")

    unknown = client.get("/inspections")
    known = client.get("/inspections", headers={"X-API-Key": key})

    assert (unknown.status_code, known.status_code) == (401, 200)


def test_a_deployment_without_a_database_says_so(serve):
    answer = serve().get("/inspections")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "SERVICE_DATABASE" in answer.json()["detail"]


@pytest.fixture
def client_of_silence(serve):
    """An application whose database takes a call and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield serve(database=f"postgresql://x@127.0.0.1:{silent.getsockname()[1]}/x")


def test_a_question_that_takes_too_long_ends_at_its_deadline(client_of_silence):
    answer = client_of_silence.get("/inspections", headers={"X-Request-Timeout-Ms": "50"})

    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")


def test_more_questions_than_are_answered_at_once_are_told_to_come_again(client_of_silence):
    soon = {"X-Request-Timeout-Ms": "50"}

    answers = [client_of_silence.get(path, headers=soon) for path in 2 * PATHS + PATHS[:1]]

    assert [answer.status_code for answer in answers] == [504] * 4 + [429]
    assert answers[-1].json()["code"] == "busy"
    assert int(answers[-1].headers["Retry-After"]) >= 1


PATHS = ["/inspections", f"/inspections/{inspection().id}"]
