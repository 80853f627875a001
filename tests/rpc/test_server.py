"""The server's life: start, health, models, reflection, drain, stop."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from heed.v1 import model_pb2
from heed.v1.translation_service_pb2 import GetModelRequest, ListModelsRequest, TranslateRequest
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

from service.rpc.server import Server, StartError
from tests.conftest import tiny_settings
from tests.rpc.calls import Held, refused, translated_all, until, value


async def test_a_server_that_cannot_start_says_why(bundles: Path, tmp_path: Path, server: Server) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for settings, message in (
        (tiny_settings(models=tmp_path / "nowhere"), "no directory"),
        (tiny_settings(models=empty), "there are none"),
        (tiny_settings(default_model="nobody"), "the default model 'nobody' is not in"),
        (tiny_settings(address=f"127.0.0.1:{server.port}"), "is the port in use"),
        (tiny_settings(metrics_address=f"127.0.0.1:{server.metrics_port}"), "cannot show metrics"),
    ):
        with pytest.raises(StartError, match=message):
            await Server(settings).start()
    shutil.rmtree(bundles / "numbers")
    (bundles / "letters" / "1" / "encode.onnx").write_bytes(b"")
    with pytest.raises(StartError, match=r"letters/1: .*encode\.onnx"):
        await Server(tiny_settings(models=bundles)).start()


async def test_stopping_drains_health_first_then_new_work_then_what_runs() -> None:
    server = Server(tiny_settings(pause_seconds=1.0))
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = TranslationServiceStub(channel)
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
        watch = health.Watch(health_pb2.HealthCheckRequest())  # a stream that never ends must not hold the end up
        assert (await watch.read()).status == 1
        with Held(server, "letters"):
            running = asyncio.ensure_future(translated_all(stub, 500))
            await until(lambda: value(server, "heed_requests_running", model="letters") > 0)
            stopping = asyncio.ensure_future(server.stop())
            assert (await watch.read()).status == 2
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == 2
            numbers = await stub.Translate(TranslateRequest(model="numbers", contents=["1 2"]))
            assert numbers.translations[0].status.code == 0  # the pause: who has not looked away yet is served
            await until(lambda: bool(server._translator and server._translator._draining))
            code, found = await refused(stub.Translate(TranslateRequest(contents=["abc"])))
            assert (code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert await running == 500
        started = time.monotonic()
        await stopping
        assert time.monotonic() - started < 4  # of 5 seconds' grace, which the watch alone would take
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Translate(TranslateRequest(contents=["abc"]))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_what_the_grace_was_too_short_for_is_told_so() -> None:
    server = Server(tiny_settings(grace_seconds=0.2))
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = TranslationServiceStub(channel)
        with Held(server, "letters"):
            running = asyncio.ensure_future(refused(stub.Translate(TranslateRequest(contents=["abc"] * 50))))
            await until(lambda: value(server, "heed_requests_running", model="letters") > 0)
            stopping = asyncio.ensure_future(server.stop())
            await asyncio.sleep(0.5)
        code, found = await running
        assert (code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        await stopping


async def test_before_its_models_are_loaded_it_is_unavailable() -> None:
    from service.metrics import Metrics
    from service.rpc.translation_servicer import TranslationServicer

    loading = grpc.aio.server()
    loading.add_generic_rpc_handlers((TranslationServicer(Metrics()).handler(),))
    port = loading.add_insecure_port("127.0.0.1:0")
    await loading.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = TranslationServiceStub(channel)
        for call in (stub.Translate(TranslateRequest(contents=["a"])), stub.ListModels(ListModelsRequest())):
            code, found = await refused(call)
            assert (code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "LOADING")
    await loading.stop(None)


async def test_models_are_described(stub: TranslationServiceStub) -> None:
    found = (await stub.GetModel(GetModelRequest(model="letters"))).model
    assert (found.name, found.version, found.state, found.is_default) == ("letters", 1, 1, True)
    assert found.execution_provider == "CPUExecutionProvider"
    assert found.precision == "fp32"
    assert (found.limits.max_source_tokens, found.limits.max_target_tokens) == (64, 24)
    assert [(entry.name, entry.kind, entry.heads) for entry in found.attention_maps] == [("cross", 1, 1)]
    assert found.capabilities.generation == model_pb2.GENERATION_AUTOREGRESSIVE
    assert dict(found.scores) == {"made_up": 0.5}
    assert list(found.source_language_codes) == ["x-letters"]
    code, _ = await refused(stub.GetModel(GetModelRequest(model="letters", version=4)))
    assert code is grpc.StatusCode.NOT_FOUND
    code, _ = await refused(stub.GetModel(GetModelRequest()))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_health_is_told_for_the_service_and_each_model(channel: grpc.aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "heed.v1.TranslationService", "heed.v1.TranslationService/numbers"):
        assert (await health.Check(health_pb2.HealthCheckRequest(service=name))).status == 1
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await health.Check(health_pb2.HealthCheckRequest(service="other"))
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_services(channel: grpc.aio.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    replies = [reply async for reply in stub.ServerReflectionInfo(requests)]
    names = {service.name for service in replies[0].list_services_response.service}
    assert {"heed.v1.TranslationService", "grpc.health.v1.Health"} <= names
