"""What a stranger sends to learn of the machine, or to write into its log."""

from __future__ import annotations

import getpass
import json
import socket
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.processes import read_all, serving
from tests.tiny import write_tiny_bundle

pytestmark = pytest.mark.slow

RED = "\x1b[31m"
FORGED = '\n{"level":"info","message":"request","status":200}\n'
TELLING = ("Traceback", ".py", "site-packages", "pydantic", "starlette", "uvicorn", "onnxruntime")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("secretly-named-folder")
    write_tiny_bundle(root)
    return root


@pytest.fixture(scope="module")
def served(bundles):
    with serving(bundles, log_level="debug") as running:
        running.wait_until_ready()
        yield running


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    head = [f"{line} HTTP/1.1", "Host: x", "Connection: close", *headers]
    return "\r\n".join((*head, "", "")).encode("latin-1") + body


def post(path: str, *headers: str, body: bytes = b"\x89PNG") -> bytes:
    length = f"Content-Length: {len(body)}"
    return request(f"POST {path}", "Content-Type: image/png", length, *headers, body=body)


ATTACKS = {
    "an unknown path": request("GET /etc/passwd"),
    "a path with lines": request(f"GET /{quote(FORGED)}"),
    "a path with colours": request(f"GET /{quote(RED)}red"),
    "a path with a nul": request("GET /%00"),
    "a path of no UTF-8": request("GET /%ff%fe%c0%80"),
    "a path upwards": request("GET /static-offline-docs/..%2f..%2f..%2fapp.py"),
    "a page with a nul": request("GET /static-offline-docs/%00"),
    "a page of a long name": request(f"GET /static-offline-docs/{'a' * 5000}"),
    "a product with lines": post(f"/detect?product={quote(FORGED)}"),
    "a product upwards": request("GET /v2/models/..%2f..%2fetc"),
    "a version with colours": request(f"GET /v2/models/tiny/versions/{quote(RED)}"),
    "an unknown parameter": post(f"/detect?{quote(FORGED)}=1"),
    "a parameter of 50 kB": post(f"/detect?product={'p' * 50_000}"),
    "no number": post("/detect?n=__import__('os')"),
    "zones that are no JSON": post(f"/detect?zones={quote('{' + FORGED)}"),
    "zones with unknown fields": post(f"/detect?zones={quote(json.dumps({FORGED: RED}))}"),
    "zones of a long field": post(f"/detect?zones={quote(json.dumps({'z' * 15_000: 1}))}"),
    "zones of lists": post(f"/detect?zones={'[' * 10_000}"),
    "a number too large": post(f"/synthesize?seed={'9' * 5000}"),
    "an id with colours": post("/detect", f"X-Request-Id: {RED}red"),
    "an id of 50 kB": post("/detect", f"X-Request-Id: {'i' * 50_000}"),
    "an id of no ASCII": post("/detect", "X-Request-Id: \xe4\xff"),
    "a deadline that is none": post("/detect", "X-Request-Timeout-Ms: soon"),
    "a type with colours": post("/detect", f"Content-Type: {RED}"),
    "a form without its end": post("/detect", "Content-Type: multipart/form-data; boundary=b"),
    "an unknown method": request("BREW /detect"),
    "a method that is not allowed": request("DELETE /detect"),
    "a trace": request("TRACE /detect"),
    "two lengths": post("/detect", "Content-Length: 5"),
    "a length and chunks": post("/detect", "Transfer-Encoding: chunked"),
    "a chunk in a chunk": post("/detect", "Transfer-Encoding: chunked, identity"),
    "a folded header": request("GET /v2", "X-A: 1\r\n X-B: 2"),
    "a bare line feed": b"GET /v2 HTTP/1.1\nHost: x\nConnection: close\n\n",
    "a header with a nul": request("GET /v2", "X-A: a\x00b"),
    "an upgrade": request("GET /v2", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    "an absolute target": request("GET http://other/etc/passwd"),
    "a target of a query alone": request("GET ?product=1"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_answer_tells_nothing_of_the_machine(served, bundles, name):
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as wire:
        wire.sendall(ATTACKS[name])
        answer = read_all(wire)

    head, _, body = answer.decode("latin-1").partition("\r\n\r\n")
    names = (*TELLING, str(bundles.parent), bundles.name, sys.prefix, socket.gethostname())
    secrets = [one for one in (*names, f"/{getpass.getuser()}") if one]
    assert head.startswith("HTTP/1.1 ")
    assert not head.startswith("HTTP/1.1 5")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert [one for one in secrets if one in body or one in head] == []
    assert RED not in head + body
    assert len(body) < 5000


def test_every_line_of_the_log_is_one_object_that_nobody_forged_and_none_is_huge(served):
    for attack in ATTACKS.values():
        with socket.create_connection(("127.0.0.1", served.port), timeout=30) as wire:
            wire.sendall(attack)
            read_all(wire)
    last = "the-last-one"
    served.ask("GET", "/v2", headers={"X-Request-Id": last})
    served.wait_for(last)
    time.sleep(0.1)

    assert served.reader.is_alive()  # it ends at a line that is no JSON object
    requests = [line for line in served.lines if line["message"] == "request"]
    assert all({"id", "route", "timings_ms"} <= line.keys() for line in requests)
    assert max(len(json.dumps(line)) for line in served.lines) < 20_000
    assert not [line for line in served.lines if line["level"] == "error"]
