"""Calling a server in the tests: what an error says, what the metrics page says, holding a model still."""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from heed.v1.translation_service_pb2 import TranslateRequest, TranslateResponse
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub
from prometheus_client.parser import text_string_to_metric_families

from service.rpc.server import Server


def details(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return status_pb2.Status.FromString(value)
    pytest.fail(f"no details: {error}")


def info(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    found = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(found)
    assert found.domain == "heed.dev"
    return found


async def refused(call: Any) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), info(details(caught.value))


async def still_serves(stub: TranslationServiceStub) -> None:
    reply = await stub.Translate(TranslateRequest(contents=["abc"]))
    assert reply.translations[0].status.code == 0


def value(server: Server, name: str, **labels: str) -> float:
    """One sample of the metrics page; 0 when it is not there yet."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=5) as page:
        text = page.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "never came true"
        await asyncio.sleep(0.005)


class Held:
    """Every decoder step of one model waits until it is let go: the queue is what the test makes it."""

    def __init__(self, server: Server, name: str) -> None:
        assert server._registry is not None
        (engine,) = (model.engine for model in server._registry.ready if model.name == name)
        step = engine._model.decode_step
        self._let_go = threading.Event()

        def waits(*arguments: Any) -> Any:
            assert self._let_go.wait(20)
            return step(*arguments)

        engine._model.decode_step = waits  # type: ignore[method-assign]

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go.set()


async def translated_all(stub: TranslationServiceStub, count: int) -> int:
    reply: TranslateResponse = await stub.Translate(TranslateRequest(contents=["abc"] * count))
    return sum(item.status.code == 0 for item in reply.translations)
