from __future__ import annotations

import inspect
import logging
from http import HTTPStatus

import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient

from models import errors
from service.deps import KeyMissing
from service.problems import PROBLEMS, TITLES, install_problem_handlers, problem_responses
from service.telemetry import Telemetry, TraceMiddleware

FIELDS = {"type", "title", "status", "detail", "error", "instance", "code"}
INPUT_ERRORS = errors.InputError.__subclasses__()


@pytest.fixture
def failing():
    """An application with one route that fails as it is told."""
    app = FastAPI()
    install_problem_handlers(app)
    app.add_middleware(TraceMiddleware, telemetry=Telemetry())
    failures: list[Exception] = []

    @app.get("/fail")
    async def fail() -> None:
        raise failures[0]

    client = TestClient(app)

    def ask(error: Exception):
        failures[:] = [error]
        return client.get("/fail")

    return ask


@pytest.mark.parametrize("kind", INPUT_ERRORS, ids=lambda kind: kind.__name__)
def test_every_input_error_has_a_place_in_the_table(kind):
    assert any(one in PROBLEMS for one in kind.__mro__)


@pytest.mark.parametrize("code", [code for _, code in PROBLEMS.values()])
def test_every_code_has_a_title(code):
    assert TITLES[code]


def test_a_known_error_says_why(failing):
    answer = failing(errors.ParameterInvalid("label", "is unknown"))

    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json().keys() == FIELDS
    assert answer.json()["detail"] == "label: is unknown"


def test_the_instance_names_the_request(failing):
    answer = failing(errors.MaskMismatch("no"))

    assert answer.json()["instance"] == f"/requests/{answer.headers['x-request-id']}"


def test_an_unexpected_failure_is_logged_with_its_trace_and_told_without(failing, caplog):
    with caplog.at_level(logging.ERROR):
        answer = failing(RuntimeError("secret at /srv/x.py"))

    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text
    (record,) = caplog.records
    assert record.exc_info[0] is RuntimeError
    assert record.fields["id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/none", 404, "not_found"), ("POST", "/v2", 405, "method_not_allowed")],
)
def test_a_wrong_address_is_a_problem_document_too(client, method, path, status, code):
    answer = client.request(method, path)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert path not in answer.json()["detail"]


def test_a_wrong_method_is_told_the_right_one(client):
    assert client.get("/detect").headers["allow"] == "POST"


def test_the_openapi_description_of_a_problem_names_its_codes():
    described = problem_responses(422)[422]

    assert "mask_mismatch" in described["description"]
    assert "application/problem+json" in described["content"]


def test_an_answer_that_has_begun_is_cut_without_noise_and_its_code_is_logged(caplog):
    app = FastAPI()
    install_problem_handlers(app)
    app.add_middleware(TraceMiddleware, telemetry=Telemetry())

    async def pieces():
        yield b"begin"
        raise errors.MaskMismatch("too late")

    @app.get("/fail")
    async def fail() -> StreamingResponse:
        return StreamingResponse(pieces())

    with caplog.at_level(logging.INFO):
        answer = TestClient(app).get("/fail")

    (record,) = [record for record in caplog.records if record.name == "service"]
    assert answer.content == b"begin"
    assert (record.fields["status"], record.fields["code"]) == (200, "mask_mismatch")


def test_no_answer_to_an_error_waits_for_a_thread(client):
    handlers = client.app.exception_handlers

    assert {KeyMissing, RequestValidationError, HTTPException} <= handlers.keys()
    ours = [one for one in handlers.values() if one.__module__ == "service.problems"]
    assert len(ours) > 20
    assert all(inspect.iscoroutinefunction(one) for one in ours)
