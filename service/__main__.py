"""`python -m service`: serve until told to stop, then finish what has begun."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from types import FrameType
from typing import NoReturn, get_args

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from models.errors import FlawsmithError
from service.app import create_app
from service.compute.engine import Engine
from service.connections import ConnectionLimits, protocol_of
from service.extras import SettingRefused
from service.keys import Role, entry_of, new_key, write_entry
from service.settings import Settings
from service.telemetry import write_logs_as_json

LOG = logging.getLogger("service")


class DrainingServer(uvicorn.Server):
    """It answers while the bundles are loaded, and ends when that failed.

    At the first signal it refuses new requests (503) and ends when the last old one is out.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_s: float) -> None:
        super().__init__(config)
        self.app = app
        self.engine: Engine = app.state.engine
        self.drain_s = drain_s
        self.has_failed = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A second signal ends at once."""
        if self.engine.is_draining:
            LOG.warning("told twice to stop: requests are cut")
            self.force_exit = True
            super().handle_exit(sig, frame)
        self.engine.drain()
        self.should_exit = self.should_exit or not self.started

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        is_over = await super().on_tick(counter) or self.engine.is_drained(self.drain_s)
        return is_over or self._fails_to_load()

    def _fails_to_load(self) -> bool:
        error = self.app.state.services.loading.error
        if error is not None and not self.has_failed:
            is_expected = isinstance(error, FlawsmithError)
            LOG.error("the start failed: %s", error, exc_info=None if is_expected else error)
            self.has_failed = True
        return self.has_failed


def main(arguments: list[str] | None = None) -> int:
    """Serve, or make an API key."""
    given = _parser().parse_args(arguments)
    return print_new_key(given.role) if given.command == "new-key" else serve()


def print_new_key(role: Role) -> int:
    """The only time that the key is seen; the service keeps its digest."""
    key = new_key()
    print(f"key, for the client, shown this once:  {key}")
    print(f"entry, for SERVICE_API_KEYS:           {write_entry(entry_of(key, role))}")
    return 0


def serve() -> int:
    """Serve as SERVICE_* says. 0 after a clean stop, 2 for bad settings, 3 for a failed start."""
    try:
        settings = Settings()
    except ValidationError as error:
        print(error, file=sys.stderr)
        return 2
    write_logs_as_json(settings.log_level)
    try:
        app = create_app(settings, answers_while_loading=True)
    except SettingRefused as error:
        print(error, file=sys.stderr)
        return 2
    config = uvicorn_config(app, settings)
    try:
        config.load()
    except OSError as error:  # ssl's errors are such
        LOG.error("the TLS certificate and its key cannot be read: %s", error)
        return 3
    server = DrainingServer(config, app, settings.drain_s)
    try:
        server.run()
    except SystemExit:  # uvicorn's word for an address that is taken; it has logged which
        return 3
    return 3 if server.has_failed else 0


def uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Logs stay ours; after draining, connections get one more second."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=protocol_of(connection_limits(settings)),
        ws="none",
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )


def connection_limits(settings: Settings) -> ConnectionLimits:
    """What one connection may take, as the settings say."""
    return ConnectionLimits(
        head_s=settings.head_timeout_s,
        head_bytes=settings.max_head_bytes,
        headers=settings.max_headers,
        stall_s=settings.stall_s,
        bytes_per_s=settings.min_bytes_per_s,
        connections=settings.max_connections,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service", description="Serve as the environment's SERVICE_* variables say."
    )
    commands = parser.add_subparsers(dest="command", metavar="new-key")
    making = commands.add_parser("new-key", help="make an API key and its entry, and do not serve")
    making.add_argument("--role", choices=get_args(Role), default="infer", help="what it opens")
    return parser


def leave(code: int) -> NoReturn:
    """End the process, whatever its threads do: a worker that hangs must not keep it."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
