"""`python -m service`: serve until told to stop, then finish what has begun."""

from __future__ import annotations

import argparse
import logging
import sys
from types import FrameType
from typing import get_args

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from service.app import create_app
from service.connections import ConnectionLimits, protocol_of
from service.engine import Engine
from service.keys import Role, entry_of, new_key, write_entry
from service.settings import Settings
from service.telemetry import write_logs_as_json

LOG = logging.getLogger("service")


class DrainingServer(uvicorn.Server):
    """At the first signal it refuses new requests (503) and ends when the last old one is out."""

    def __init__(self, config: uvicorn.Config, engine: Engine, drain_s: float) -> None:
        super().__init__(config)
        self.engine = engine
        self.drain_s = drain_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A second signal ends at once."""
        if self.engine.is_draining or not self.started:
            super().handle_exit(sig, frame)
        self.engine.drain()

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        return await super().on_tick(counter) or self.engine.is_drained(self.drain_s)


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
    app = create_app(settings)
    config = uvicorn_config(app, settings)
    try:
        config.load()
    except OSError as error:  # ssl's errors are such
        LOG.error("the TLS certificate and its key cannot be read: %s", error)
        return 3
    server = DrainingServer(config, app.state.engine, settings.drain_s)
    server.run()
    return 0 if server.started else 3


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


if __name__ == "__main__":
    sys.exit(main())
