"""The server's life: bind, load, serve, drain, stop.

Health says NOT_SERVING until every model is loaded, and again from SIGTERM on: then load balancers have a pause to look
away, new work is refused, what runs is finished, and the process ends.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from contextlib import suppress

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import start_http_server

from service.bundle.errors import BundleError
from service.bundle.repository import Repository
from service.engine.engine import EngineSettings
from service.metrics import Metrics
from service.registry import ModelRegistry
from service.rpc.interceptors import MetricsInterceptor
from service.rpc.translation_servicer import MAX_SEND_BYTES, SERVICE_NAME, TranslationServicer
from service.settings import ServerSettings, split_address
from service.translator import TextLimits, Translator

_log = logging.getLogger(__name__)
_MAX_RECEIVE_BYTES = 4 * 1024 * 1024
_MINUTE_MS = 60_000
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # with it a second server would share the port without a word
    ("grpc.max_receive_message_length", _MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", MAX_SEND_BYTES),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", _MINUTE_MS),
    ("grpc.max_connection_age_ms", 30 * _MINUTE_MS),
    ("grpc.max_connection_age_grace_ms", _MINUTE_MS),
)
_LAG_SECONDS = 0.5
_LAST_WORDS_SECONDS = 0.25  # for replies that are written and not yet sent


class StartError(Exception):
    """The server cannot start; the message is for the operator."""


class Server:
    """One server in one event loop: ``start``, then ``stop``."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self.metrics = Metrics()
        self.port = 0
        self.metrics_port = 0
        self._servicer = TranslationServicer(self.metrics)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._grpc = grpc.aio.server(interceptors=[MetricsInterceptor(self.metrics)], options=_OPTIONS)
        self._registry: ModelRegistry | None = None
        self._translator: Translator | None = None
        self._close_metrics: Callable[[], None] = lambda: None
        self._lag: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Bind both addresses, then load the models. Raises StartError; a refused model alone is no reason."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING, "", SERVICE_NAME)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        self._grpc.add_generic_rpc_handlers((self._servicer.handler(),))
        reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), self._grpc)
        try:
            repository = Repository(self._settings.models)
        except BundleError as error:
            raise StartError(str(error)) from error
        self._bind()
        await self._grpc.start()
        self._lag = asyncio.create_task(self._watch_event_loop())
        try:
            self._registry = registry = await asyncio.to_thread(self._load, repository)
        except BundleError as error:
            await self.stop(pause=False)
            raise StartError(str(error)) from error
        if not registry.ready:
            await self.stop(pause=False)
            reasons = "; ".join(f"{model.name}/{model.version}: {model.error}" for model in registry.refused)
            raise StartError(f"no model of {repository.root} can be served: {reasons or 'there are none'}")
        limits = TextLimits(self._settings.max_contents, self._settings.max_characters)
        self._translator = Translator(registry, self.metrics, limits)
        self._servicer.serve(registry, self._translator)
        serving = health_pb2.HealthCheckResponse.SERVING
        await self._set_health(serving, "", SERVICE_NAME, *(f"{SERVICE_NAME}/{m.name}" for m in registry.ready))
        for refused in registry.refused:
            if refused.name not in {model.name for model in registry.ready}:
                name = f"{SERVICE_NAME}/{refused.name}"
                await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING, name)

    def _load(self, repository: Repository) -> ModelRegistry:
        settings = self._settings
        engine_settings = EngineSettings(
            settings.workers, settings.threads_per_worker, settings.rows_per_worker, settings.queue_tokens
        )
        return ModelRegistry(
            repository, self.metrics, settings.provider, engine_settings, settings.default_model, settings.precision
        )

    def _bind(self) -> None:
        try:
            self.port = self._grpc.add_insecure_port(self._settings.address)
        except RuntimeError as error:
            raise StartError(f"cannot listen on {self._settings.address}: is the port in use?") from error
        host, port = split_address(self._settings.metrics_address)
        try:
            http, thread = start_http_server(port, host, self.metrics.registry)
        except OSError as error:
            raise StartError(f"cannot show metrics on {self._settings.metrics_address}: {error.strerror}") from error
        self.metrics_port = http.server_port

        def close() -> None:
            http.shutdown()
            http.server_close()
            thread.join()

        self._close_metrics = close

    async def stop(self, pause: bool = True) -> None:
        """Drain: nothing new, everything under way to its end within the grace, then stop."""
        self.metrics.draining.set(1)
        await self._health.enter_graceful_shutdown()
        if pause:
            await asyncio.sleep(self._settings.pause_seconds)
        if self._translator is not None:
            self._translator.drain()
        # Our own calls get the grace. gRPC's would wait for streams that never end, such as a client's health watch.
        await self._servicer.wait_until_idle(self._settings.grace_seconds if pause else 0.0)
        finished = True
        if self._registry is not None:
            finished = await asyncio.to_thread(self._registry.stop, 0.0)
        if not finished:  # what was given up is answered: gRPC would cut it off without a word
            await self._servicer.wait_until_idle(_LAST_WORDS_SECONDS)
        await self._grpc.stop(_LAST_WORDS_SECONDS if pause else None)
        if self._registry is not None:
            _log.info("stopped%s", "" if finished else ": the grace was too short, some work was given up")
        if self._lag is not None:
            self._lag.cancel()
            with suppress(asyncio.CancelledError):
                await self._lag
        await asyncio.to_thread(self._close_metrics)

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType, *names: str) -> None:
        for name in names:
            await self._health.set(name, status)

    async def _watch_event_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wanted = loop.time() + _LAG_SECONDS
            await asyncio.sleep(_LAG_SECONDS)
            self.metrics.event_loop_lag.set(max(0.0, loop.time() - wanted))


async def run(settings: ServerSettings, on_ready: Callable[[Server], None]) -> None:
    """Start, tell, serve until SIGTERM or SIGINT, then drain and stop. Raises StartError.

    Signals are heard from the beginning: the first process of a container has no other way to be stopped, and one that
    comes while models are loading ends the server as soon as they are, without a pause.
    """
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    server = Server(settings)
    await server.start()
    nobody_came = asked.is_set()
    if not nobody_came:
        on_ready(server)
        await asked.wait()
        _log.info("stopping: health is NOT_SERVING, then %.1f s pause", settings.pause_seconds)
    await server.stop(pause=not nobody_came)
