"""Composition root: settings -> application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from service.answers import PacedAnswers, SecurityHeaders
from service.bundles.library import open_library
from service.bundles.loading import Loading
from service.bundles.watch import watched
from service.compute.engine import Engine
from service.deps import Services, own_page, require_role
from service.problems import install_problem_handlers, problem_responses
from service.records.recording import Recording, open_places
from service.records.replays import Replays
from service.routes import detection, health, inspections, models, repository, synthesis
from service.settings import Settings
from service.telemetry import Telemetry, TraceMiddleware
from service.tracing import open_tracing

ASKED_ACROSS = (
    "Authorization",
    "Idempotency-Key",
    "X-API-Key",
    "X-Request-Id",
    "X-Request-Timeout-Ms",
    "traceparent",
)
"""Headers that a page of another origin may send, where one is allowed, beside the plain ones."""


def create_app(settings: Settings, *, answers_while_loading: bool = False) -> FastAPI:
    """An application that loads its bundles when it starts. Health and metrics ask for no API key.

    A bad bundle fails the start, not the first request. With answers_while_loading the start does
    not wait: the application lives and is not ready, and its server looks at `Loading.error`.

    Errors: SettingRefused; at its start, BundleError, which names the bundle.
    """
    places = open_places(settings)
    tracing = open_tracing()
    telemetry = Telemetry(tracing)
    engine = Engine(settings, telemetry)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        recording = Recording(places, settings, telemetry)
        replays = Replays(
            recording, keep_s=settings.idempotency_s, max_bytes=settings.idempotency_bytes
        )
        loading = Loading(lambda: open_library(settings, telemetry, engine.serve))
        app.state.services = Services(settings, loading, engine, telemetry, recording, replays)
        async with watched(loading, settings.watch_s):
            if not answers_while_loading:
                await loading.wait()
            yield
        loading.close()
        engine.close()
        await asyncio.gather(*map(asyncio.to_thread, (recording.close, tracing.close)))

    app = FastAPIOffline(  # its /docs loads nothing from another network
        title="Flawsmith",
        description="Finds tiny defects in large pictures, and makes new ones to train on.",
        version=installed_version(),
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry=tracing.config(),
    )
    app.state.engine = engine
    install_problem_handlers(app)
    app.add_middleware(PacedAnswers)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=ASKED_ACROSS,
            expose_headers=["Idempotent-Replayed", "Retry-After", "X-Request-Id"],
        )
    app.add_middleware(SecurityHeaders)
    app.add_middleware(TraceMiddleware, telemetry=telemetry)
    guarded = [Depends(own_page), Depends(require_role("infer"))]
    for work in (detection.router, synthesis.router):
        answers = problem_responses(401, 403, 404, 406, 409, 413, 415, 422, 429, 503, 504)
        app.include_router(work, dependencies=guarded, responses=answers)
    app.include_router(
        models.router, dependencies=guarded, responses=problem_responses(401, 403, 404, 503)
    )
    app.include_router(
        inspections.router,
        dependencies=guarded,
        responses=problem_responses(401, 403, 404, 422, 429, 503, 504),
    )
    app.include_router(
        repository.router,
        dependencies=[Depends(own_page), Depends(require_role("admin"))],
        responses=problem_responses(401, 403, 404, 409, 413, 422, 503),
    )
    app.include_router(health.router, responses=problem_responses(503))
    return app


def installed_version() -> str:
    """The installed package's version; a bare checkout has none."""
    try:
        return version("flawsmith")
    except PackageNotFoundError:
        return "0"
