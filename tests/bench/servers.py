"""`python -m tests.bench.servers`: our service beside LitServe and BentoML, with 16 clients.

Each tells story 1 with the same bundle, the same decoder and as many workers, so the ratio is
what the server is worth. LitServe comes with the extra `bench`. BentoML asks for other versions of
OpenTelemetry than ours: name the interpreter of an environment that it has for itself.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx2

from models.bundle import SHIPPED, find_bundle
from tests.bench.figures import Bar, Figure, table_of
from tests.bench.load import Ask, ask_at_once
from tests.bench.serving import START_S, free_port, run_service
from tests.bench.story import BUNDLE, THREADS

CLIENTS = 16
ROUNDS, REQUESTS = 3, 48
THREADS_EACH = 1
"""Of each graph, ours as theirs: with more, two workers would take two cores from each other."""
SAMPLE = Path(__file__).parents[2] / "samples" / "plate.jpg"


@dataclass(frozen=True)
class Peer:
    """A server that is not ours: how it is started, asked, and known to be ready."""

    name: str
    command: Callable[[int], Sequence[str]]
    ready: str
    ask: Callable[[bytes], Ask]


def main(given: list[str] | None = None) -> int:
    """Measure and print: 0."""
    arguments = _parser().parse_args(given)
    peers = [_litserve(sys.executable)]
    if arguments.bentoml:
        peers.append(_bentoml(arguments.bentoml))
    picture = arguments.picture.read_bytes()
    print(table_of(measure_servers(arguments.bundles, arguments.product, picture, peers)))
    return 0


def measure_servers(
    bundles: Path, product: str, picture: bytes, peers: Sequence[Peer]
) -> list[Figure]:
    """Our answers a second ÷ each peer's, taken in turn; then ÷ the better one's.

    Errors: RuntimeError where a server does not start or refuses a request.
    """
    bundle = find_bundle(bundles, product)
    with ExitStack() as stack:
        ours = stack.enter_context(run_service(bundles, threads=THREADS_EACH)).port
        ports = [stack.enter_context(_run(peer, bundle)) for peer in peers]
        mine = Ask(f"/detect?product={product}", picture)
        spent_s = [
            (
                time_of(ours, mine),
                *(time_of(port, p.ask(picture)) for p, port in zip(peers, ports, strict=True)),
            )
            for _ in range(ROUNDS)
        ]
    ratios = {
        peer.name: median(theirs[i] / theirs[0] for theirs in spent_s)
        for i, peer in enumerate(peers, start=1)
    }
    return [
        *(Figure(f"throughput_over_{name}", ratio) for name, ratio in ratios.items()),
        Figure("throughput_over_the_better_peer", min(ratios.values()), Bar("at least", 1.3)),
    ]


def time_of(port: int, ask: Ask) -> float:
    """The time of REQUESTS by CLIENTS at once, s. Errors: RuntimeError where one is refused."""
    started_s = time.perf_counter()
    answers = ask_at_once(port, [ask] * REQUESTS, clients=CLIENTS)
    spent_s = time.perf_counter() - started_s
    refused = {answer.status for answer in answers} - {200}
    if refused:
        raise RuntimeError(f"port {port} answered {refused}")
    return spent_s


def _litserve(python: str) -> Peer:
    def ask(picture: bytes) -> Ask:
        body = json.dumps({"image": base64.b64encode(picture).decode()}).encode()
        return Ask("/detect", body, "application/json")

    def command(port: int) -> list[str]:
        return [python, "-m", "tests.bench.litserve_server", str(port)]

    return Peer("litserve", command, "/health", ask)


def _bentoml(python: str) -> Peer:
    def command(port: int) -> list[str]:
        served = "tests.bench.bentoml_server:Detect"
        return [python, "-m", "bentoml", "serve", served, "--port", str(port)]

    return Peer("bentoml", command, "/readyz", lambda picture: Ask("/detect", picture))


@contextmanager
def _run(peer: Peer, bundle: Path) -> Iterator[int]:
    port = free_port()
    environment = os.environ | {BUNDLE: str(bundle), THREADS: str(THREADS_EACH)}
    command = peer.command(port)
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        try:
            _wait(process, f"http://127.0.0.1:{port}{peer.ready}", peer.name)
            yield port
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # LitServe leaves processes behind when asked


def _wait(process: subprocess.Popen[bytes], url: str, name: str) -> None:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            if httpx2.get(url).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.2)
    raise RuntimeError(f"{name} did not start: exit status {process.poll()}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.servers", description=__doc__)
    parser.add_argument("--bundles", type=Path, default=SHIPPED, help="folder of the bundles")
    parser.add_argument("--product", default="brushed-plate", help="whose bundle")
    parser.add_argument("--picture", type=Path, default=SAMPLE, help="what every client sends")
    parser.add_argument("--bentoml", help="Python of an environment with BentoML and ours")
    return parser


if __name__ == "__main__":
    sys.exit(main())
