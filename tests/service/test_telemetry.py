from __future__ import annotations

import json
import logging
import subprocess
import sys
from uuid import UUID

import pytest
from prometheus_client import Histogram, generate_latest

from service.telemetry import JsonLines, Telemetry, Trace, new_id, request_id


def test_an_id_is_a_uuid_of_version_7():
    made = UUID(new_id())

    assert made.version == 7
    assert made.variant == "specified in RFC 4122"


def test_ids_are_ordered_in_time():
    first = new_id()
    while (later := new_id())[:13] == first[:13]:
        pass

    assert first < later


@pytest.mark.parametrize("asked", ["a", "job-7.2_x", "A" * 128])
def test_a_plain_request_id_is_kept(asked):
    assert request_id(asked) == asked


@pytest.mark.parametrize("asked", [None, "", "a b", "ä", "x\n", "../x", "A" * 129])
def test_another_request_id_is_replaced(asked):
    assert UUID(request_id(asked)).version == 7


def test_a_stage_that_is_measured_twice_adds_up():
    trace = Trace("1")
    trace.add({"queue": 2.0})
    trace.add({"queue": 3.0})

    assert trace.timings_ms == {"queue": 5.0}


def test_a_report_names_each_stage_and_a_total_that_covers_them():
    trace = Trace("1")
    with trace.measure("decode"):
        pass

    report = trace.report_ms("queue", "decode")

    assert list(report) == ["queue", "decode", "total"]
    assert report["queue"] == 0.0
    assert report["total"] >= report["decode"]


def test_a_finished_request_is_counted_and_logged_once(caplog):
    telemetry, trace = Telemetry(), Trace("one", product="tiny", verdict="ng", status=200)
    trace.add({"decode": 4.0})

    with caplog.at_level(logging.INFO, "service"):
        telemetry.finish(trace, "/detect")

    text = generate_latest(telemetry.registry).decode()
    (record,) = caplog.records
    assert 'flawsmith_requests_total{product="tiny",route="/detect",status="200"} 1.0' in text
    decode = 'flawsmith_stage_seconds_count{product="tiny",route="/detect",stage="decode"} 1.0'
    assert decode in text
    assert (record.fields["id"], record.fields["verdict"]) == ("one", "ng")


def test_a_log_line_names_the_part_only_where_the_client_did(caplog):
    named = Trace("one", references={"part_id": "A-17", "job_id": "7"})

    with caplog.at_level(logging.INFO, "service"):
        Telemetry().finish(named, "/detect")
        Telemetry().finish(Trace("two"), "/detect")

    told, untold = (record.fields for record in caplog.records)
    assert (told["part_id"], told["job_id"]) == ("A-17", "7")
    assert "recipe_id" not in told
    assert "part_id" not in untold


def test_a_request_is_finished_while_its_abandoned_worker_still_adds():
    telemetry, trace = Telemetry(), Trace("one", status=504)
    trace.add({"decode": 4.0})

    class AddsWhenCounted(Histogram):
        def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
            trace.add({f"late {len(trace.timings_ms)}": 1.0})
            super().observe(amount, exemplar)

    telemetry.stage_seconds = AddsWhenCounted(
        "stage", "adds", ["route", "stage", "product"], registry=None
    )

    telemetry.finish(trace, "/detect")

    assert trace.report_ms()["late 1"] == 1.0


def test_two_applications_do_not_share_metrics():
    one, other = Telemetry(), Telemetry()
    one.queued.set(3)

    assert b"flawsmith_queued 0.0" in generate_latest(other.registry)


def test_a_log_line_is_one_json_object_even_with_a_trace():
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "said %s", ("a",), sys.exc_info())
    record.fields = {"id": "7"}

    line = JsonLines().format(record)

    assert "\n" not in line
    told = json.loads(line)
    assert (told["message"], told["id"], told["level"]) == ("said a", "7", "error")
    assert "ValueError" in told["trace"]


def test_logs_go_to_stdout_from_the_level_on():
    code = (
        "import logging, service.telemetry as t; t.write_logs_as_json('warning');"
        "logging.info('no'); logging.warning('yes')"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert json.loads(done.stdout)["message"] == "yes"
    assert done.stderr == ""


def test_audits_and_what_they_found_are_counted_by_product():
    telemetry = Telemetry()
    telemetry.audited.labels("tiny").inc()
    telemetry.missed.labels("tiny", "pit").inc(2)

    text = generate_latest(telemetry.registry).decode()

    assert 'flawsmith_audited_pictures_total{product="tiny"} 1.0' in text
    assert 'flawsmith_audit_missed_defects_total{label="pit",product="tiny"} 2.0' in text


def test_the_process_tells_its_memory():
    assert b"process_resident_memory_bytes" in generate_latest(Telemetry().registry)


@pytest.mark.parametrize("hostile", ["\n{}", "\x1b[31m", "\r", "\x00", "\u2028", "\ud800"])
def test_a_line_stays_one_line_of_plain_text_whatever_is_told(hostile):
    record = logging.LogRecord("service", logging.INFO, "", 0, "said %s", (hostile,), None)
    record.fields = {"part_id": hostile, hostile: {hostile: [hostile]}}

    line = JsonLines().format(record)

    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["part_id"] == hostile


def test_a_text_that_is_huge_keeps_its_two_ends():
    record = logging.LogRecord("service", logging.INFO, "", 0, "a%sz", ("x" * 100_000,), None)

    message = json.loads(JsonLines().format(record))["message"]

    assert len(message) < 10_000
    assert (message[0], message[-1]) == ("a", "z")
