"""`python -m tests.bench.steadiness`: the service asked by many, for too much, and for long.

Takes a quarter of an hour: two minutes at 4 × capacity, then 20,000 requests.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np

from models.bundle import SHIPPED, find_bundle, open_bundle
from models.detection import Detector, detect
from models.session import Device
from models.steps.pictures import PictureLimits, decode_picture, encode_jpeg
from tests.bench.figures import Bar, Figure, table_of
from tests.bench.load import LOST, Answer, Ask, ask_at_once, ask_at_rate, percentile_s
from tests.bench.serving import THREADS, run_service
from training.renderer import render_plate

CLIENTS, WORKERS = 16, 2
SATURATED_ROUNDS, SATURATED_REQUESTS = 3, 48
OVERLOAD = 4.0
OVERLOAD_CLIENTS = 64
"""More than the service lets in, so that it has to refuse."""
SMALL_HW = (480, 640)
FIRST = 1000
"""Requests after which memory should have stopped growing."""
SAMPLE = Path(__file__).parents[2] / "samples" / "plate.jpg"


def main(given: list[str] | None = None) -> int:
    """Measure and print: 0; with --strict 1 where one is short."""
    arguments = _parser().parse_args(given)
    bundles, product = arguments.bundles, arguments.product
    figures = [
        measure_saturation(bundles, product, SAMPLE.read_bytes()),
        *measure_overload(bundles, product, seconds=arguments.seconds),
        *measure_soak(bundles, product, requests=arguments.requests),
    ]
    print(table_of(figures))
    return int(arguments.strict and any(figure.judgement == "short" for figure in figures))


def measure_saturation(bundles: Path, product: str, jpeg: bytes) -> Figure:
    """Answers a second to 16 clients ÷ pictures a second in this process, as many workers."""
    detector = open_bundle(find_bundle(bundles, product), Device("cpu", THREADS)).detector
    ask = Ask(f"/detect?product={product}", jpeg)
    ratios = []
    with run_service(bundles) as service, ThreadPoolExecutor(WORKERS) as pool:
        for _ in range(1 + SATURATED_ROUNDS):  # the first pays for memory and caches
            started_s = time.perf_counter()
            list(pool.map(_tell, [jpeg] * SATURATED_REQUESTS, [detector] * SATURATED_REQUESTS))
            begun_s = time.perf_counter()
            answers = ask_at_once(service.port, [ask] * SATURATED_REQUESTS, clients=CLIENTS)
            ended_s = time.perf_counter()
            _require_all(answers, {200})
            ratios.append((begun_s - started_s) / (ended_s - begun_s))
    return Figure("saturated_http_over_in_process", median(ratios[1:]), Bar("at least", 0.95))


def measure_overload(bundles: Path, product: str, *, seconds: float) -> list[Figure]:
    """So long at 4 × capacity: who is answered how fast, who is refused, and what memory does."""
    ask = Ask(f"/detect?product={product}", _small_picture(seed=1))
    with run_service(bundles) as service:
        ask_at_once(service.port, [ask] * FIRST, clients=CLIENTS)
        started_s = time.perf_counter()
        at_capacity = ask_at_once(service.port, [ask] * FIRST, clients=CLIENTS)
        per_s = FIRST / (time.perf_counter() - started_s)
        before_bytes = service.resident_bytes
        sent = ask_at_rate(
            service.port,
            ask,
            per_s=OVERLOAD * per_s,
            seconds=seconds,
            clients=OVERLOAD_CLIENTS,
        )
        after_bytes = service.resident_bytes
    statuses = Counter(answer.status for answer in sent)
    told = statuses[200] + statuses[429]
    slow_s, usual_s = percentile_s(sent, 99), percentile_s(at_capacity, 50)
    return [
        Figure("overload_answered_or_refused_share", told / len(sent), Bar("at least", 1.0)),
        Figure("overload_answered_share", statuses[200] / len(sent)),
        Figure("overload_p99_over_p50_at_capacity", slow_s / usual_s, Bar("at most", 3.0)),
        Figure("overload_refusal_p99_over_p50_at_capacity", percentile_s(sent, 99, 429) / usual_s),
        Figure(
            "overload_memory_after_over_before", after_bytes / before_bytes, Bar("at most", 1.05)
        ),
    ]


def measure_soak(bundles: Path, product: str, *, requests: int, first: int = FIRST) -> list[Figure]:
    """So many mixed requests, one in twenty bad: memory after ÷ after the first ones; failures."""
    asks = mixed_requests(product, requests)
    resident_bytes = {}
    with run_service(bundles) as service:

        def note(number: int) -> None:
            if number == first:
                resident_bytes[number] = service.resident_bytes

        answers = ask_at_once(service.port, asks, clients=CLIENTS // 2, begun=note)
        grown = service.resident_bytes / resident_bytes[first]
    failed = sum(answer.status in (LOST, 500) for answer in answers)
    bad = sum(400 <= answer.status < 500 for answer in answers)
    return [
        Figure(f"soak_memory_after_over_after_{first}", grown, Bar("at most", 1.05)),
        Figure("soak_failed_requests", float(failed), Bar("at most", 0.0)),
        Figure("soak_bad_requests_share", bad / len(answers)),
    ]


def mixed_requests(product: str, count: int) -> list[Ask]:
    """Pictures of many sizes, most to detect, some to synthesize, one in twenty bad; by chance."""
    rng = np.random.default_rng(0)
    sizes = [(192, 256), (300, 200), SMALL_HW, (512, 512), (768, 1024), (1016, 1464)]
    pictures = [_small_picture(seed, hw) for seed, hw in enumerate(sizes)]
    return [_mixed(rng, product, pictures) for _ in range(count)]


def _mixed(rng: np.random.Generator, product: str, pictures: Sequence[bytes]) -> Ask:
    picture = pictures[rng.choice(len(pictures), p=(0.3, 0.3, 0.2, 0.1, 0.08, 0.02))]
    detection = f"/detect?product={product}"
    bad = [
        Ask(detection, picture[: len(picture) // 2]),
        Ask(detection, b"no picture"),
        Ask(detection, b""),
        Ask(f"{detection}&n=1000", picture),
        Ask("/detect?product=nothing", picture),
        Ask(detection, picture, "text/plain"),
        Ask(f"/synthesize?product={product}&label=nothing", picture),
    ]
    drawn = rng.random()
    if drawn < 0.05:
        return bad[rng.integers(len(bad))]
    if drawn < 0.15:
        return Ask(f"/synthesize?product={product}&seed={rng.integers(1 << 30)}", picture)
    if drawn < 0.2:
        return Ask(f"{detection}&crop_images=jpeg&confidence_matrix=png&min_confidence=0", picture)
    return Ask(detection, picture)


def _small_picture(seed: int, size_hw: tuple[int, int] = SMALL_HW) -> bytes:
    rng = np.random.default_rng(seed)
    return encode_jpeg(render_plate(rng, size_hw=size_hw, flaw_count=3).image)


def _tell(jpeg: bytes, detector: Detector) -> None:
    detect(decode_picture(jpeg, PictureLimits()), detector)


def _require_all(answers: Sequence[Answer], statuses: set[int]) -> None:
    others = {answer.status for answer in answers} - statuses
    if others:
        raise RuntimeError(f"the service answered {others}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.steadiness", description=__doc__)
    parser.add_argument("--bundles", type=Path, default=SHIPPED, help="folder of the bundles")
    parser.add_argument("--product", default="brushed-plate", help="whose bundle")
    parser.add_argument("--seconds", type=float, default=120.0, help="of more than it can")
    parser.add_argument("--requests", type=int, default=20_000, help="one after the other")
    parser.add_argument("--strict", action="store_true", help="exit status 1 where one is short")
    return parser


if __name__ == "__main__":
    sys.exit(main())
