"""The whole service in one process, called over a real socket."""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from heed.v1 import attention_pb2, model_pb2, translation_pb2
from heed.v1.translation_service_pb2 import GetModelRequest, ListModelsRequest, TranslateRequest, TranslateResponse
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub
from prometheus_client.parser import text_string_to_metric_families

from service.bundle.repository import Bundle
from service.client import unpack
from service.rpc.server import Server, StartError
from tests.conftest import tiny_settings

TRANSLATE = "/heed.v1.TranslationService/Translate"


def _details(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return status_pb2.Status.FromString(value)
    pytest.fail(f"no details: {error}")


def _info(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "heed.dev"
    return info


async def _refused(call: Any) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code(), _info(_details(refused.value))


async def _still_serves(stub: TranslationServiceStub) -> None:
    reply = await stub.Translate(TranslateRequest(contents=["abc"]))
    assert reply.translations[0].status.code == 0


# --- translations --------------------------------------------------------------------------------------------


async def test_texts_are_translated_in_order_by_the_model_that_is_named(
    stub: TranslationServiceStub, letters: Bundle
) -> None:
    golden = letters.manifest.golden_sentences
    reply = await stub.Translate(TranslateRequest(model="letters", contents=[g.source for g in golden]))
    assert [item.hypotheses[0].text for item in reply.translations] == [g.target for g in golden]
    assert (reply.model, reply.version) == ("letters", 1)
    best = reply.translations[0].hypotheses[0]
    assert best.log_probability == pytest.approx(sum(token.log_probability for token in best.tokens), rel=1e-5)
    assert not reply.translations[0].source_tokens
    assert not best.HasField("attention")


@pytest.mark.parametrize(
    ("changes", "answers"),
    [
        ({}, ("letters", 1)),
        ({"model": "numbers"}, ("numbers", 2)),
        ({"source_language_code": "x-numbers", "target_language_code": "x-numbers-out"}, ("numbers", 2)),
        ({"model": "numbers", "version": 2, "source_language_code": "x-numbers"}, ("numbers", 2)),
    ],
)
async def test_the_model_is_chosen_by_name_languages_or_default(
    stub: TranslationServiceStub, changes: dict[str, Any], answers: tuple[str, int]
) -> None:
    reply = await stub.Translate(TranslateRequest(contents=["1 2"], **changes))
    assert (reply.model, reply.version) == answers


async def test_a_bad_text_does_not_fail_the_others(stub: TranslationServiceStub) -> None:
    contents = ["abc", "", "  ", "a" * 10_000, "cab"]
    reply = await stub.Translate(TranslateRequest(contents=contents))
    assert [item.status.code for item in reply.translations] == [0, 3, 3, 3, 0]
    assert [_info(item.status).reason for item in reply.translations[1:4]] == ["EMPTY_TEXT"] * 2 + ["TEXT_TOO_LONG"]
    assert reply.translations[3].status.message == "contents[3]: 10001 tokens; letters allows 64"
    assert _info(reply.translations[3].status).metadata["limit"] == "64"


async def test_the_output_limit_is_kept_and_told(stub: TranslationServiceStub) -> None:
    reply = await stub.Translate(TranslateRequest(contents=["a b c."], decoding={"max_output_tokens": 3}))
    best = reply.translations[0].hypotheses[0]
    assert (len(best.tokens), best.finish_reason) == (3, translation_pb2.FINISH_REASON_LENGTH)


# --- attention -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_type", attention_pb2.MatrixDataType.values()[1:])
@pytest.mark.parametrize("view", attention_pb2.AttentionView.values()[1:])
async def test_every_view_in_every_packing(stub: TranslationServiceStub, view: Any, data_type: Any) -> None:
    text = "ab c, 12 年"
    options = attention_pb2.AttentionOptions(view=view, data_type=data_type)
    reply = await stub.Translate(TranslateRequest(contents=[text], attention=options))
    item = reply.translations[0]
    best = item.hypotheses[0]
    assert [text[word.begin_offset : word.end_offset] for word in item.source_words[:-1]] == [
        "ab",
        "c",
        ",",
        "12",
        "年",
    ]
    assert item.source_words[4].is_piece
    assert (item.source_words[-1].special, item.source_tokens[-1].special) == (True, True)
    assert best.attention.alignment_source.map == "cross"
    assert best.attention.measures.mean_token_log_probability == pytest.approx(
        best.log_probability / len(best.tokens), rel=1e-5
    )
    for link in best.attention.links:
        assert 0 < link.weight <= 1
        assert not item.source_words[link.source_word].special
    if view == attention_pb2.ATTENTION_VIEW_ALIGNMENT:
        assert not best.attention.matrices
        return
    (matrix,) = best.attention.matrices
    weights = unpack(matrix)
    of_words = view == attention_pb2.ATTENTION_VIEW_WORD
    rows, columns = (best.words, item.source_words) if of_words else (best.tokens, item.source_tokens)
    assert weights.shape == (1, len(rows), len(columns))
    assert (matrix.map, list(matrix.heads), matrix.score_function) == ("cross", [0], "additive")
    assert matrix.rows_sum_to_one
    loss = {1: 1e-5, 2: 1e-2, 3: len(columns) / 255}[data_type]
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=loss)


@pytest.mark.parametrize("options", [{"maps": ["nowhere"]}, {"layers": [7]}, {"heads": [1]}, {"layers": [-1]}], ids=str)
@pytest.mark.parametrize("view", attention_pb2.AttentionView.values()[1:])
async def test_a_map_that_the_model_has_not_is_refused(
    stub: TranslationServiceStub, options: dict[str, Any], view: Any
) -> None:
    request = TranslateRequest(contents=["abc"], attention={"view": view, **options})
    code, info = await _refused(stub.Translate(request))
    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_SUCH_ATTENTION_MAP")
    await _still_serves(stub)


async def test_maps_by_name_layer_and_head_and_their_mean(stub: TranslationServiceStub) -> None:
    options = {"view": "ATTENTION_VIEW_FULL", "maps": ["cross"], "layers": [0], "heads": [0], "head_reduction": 1}
    reply = await stub.Translate(TranslateRequest(contents=["abc"], attention=options))
    (matrix,) = reply.translations[0].hypotheses[0].attention.matrices
    assert list(matrix.heads) == []
    assert matrix.shape[0] == 1


# --- bad input: the documented status and detail, and the server goes on -------------------------------------


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (TranslateRequest(), "INVALID_ARGUMENT", "INVALID_FIELD"),
        (TranslateRequest(contents=["a"] * 1025), "INVALID_ARGUMENT", "INVALID_FIELD"),
        (TranslateRequest(contents=["a"], mime_type="text/html"), "INVALID_ARGUMENT", "INVALID_FIELD"),
        (TranslateRequest(contents=["a"], attention={}), "INVALID_ARGUMENT", "INVALID_FIELD"),
        (TranslateRequest(contents=["a"], attention={"view": 99}), "INVALID_ARGUMENT", "INVALID_FIELD"),
        (
            TranslateRequest(contents=["a"], attention={"view": 1, "data_type": 99}),
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
        ),
        (TranslateRequest(contents=["a"], decoding={"max_output_tokens": 0}), "INVALID_ARGUMENT", "INVALID_FIELD"),
        (TranslateRequest(contents=["a"], decoding={"max_output_tokens": 25}), "INVALID_ARGUMENT", "INVALID_FIELD"),
        (TranslateRequest(contents=["a"], version=1), "INVALID_ARGUMENT", "INVALID_FIELD"),
        (TranslateRequest(contents=["a"], source_language_code="de"), "INVALID_ARGUMENT", "INVALID_FIELD"),
        (TranslateRequest(contents=["a"], contexts=[{}]), "FAILED_PRECONDITION", "NO_DOCUMENT_CONTEXT"),
        (TranslateRequest(contents=["a"], model="nobody"), "NOT_FOUND", "NOT_FOUND"),
        (TranslateRequest(contents=["a"], model="letters", version=3), "NOT_FOUND", "NOT_FOUND"),
        (TranslateRequest(contents=["a"], model="../letters"), "NOT_FOUND", "NOT_FOUND"),
        (
            TranslateRequest(contents=["a"], source_language_code="de", target_language_code="en"),
            "NOT_FOUND",
            "NOT_FOUND",
        ),
        (TranslateRequest(contents=["a"], model="letters", target_language_code="en"), "NOT_FOUND", "NOT_FOUND"),
    ],
)
async def test_a_bad_request_gets_its_status(
    stub: TranslationServiceStub, request_: TranslateRequest, code: str, reason: str
) -> None:
    found, info = await _refused(stub.Translate(request_))
    assert (found.name, info.reason) == (code, reason)
    await _still_serves(stub)


async def test_invalid_utf8_and_random_bytes_are_invalid_arguments(
    channel: grpc.aio.Channel, stub: TranslationServiceStub
) -> None:
    raw = channel.unary_unary(TRANSLATE)
    data = TranslateRequest(contents=["abc", "XX"]).SerializeToString().replace(b"XX", b"\xc3\x28")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await raw(data)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert _info(_details(refused.value)).reason == "INVALID_UTF8"
    assert refused.value.details() == "contents[1]: not valid UTF-8"
    generator = random.Random(0)
    for size in (1, 7, 100, 5000):
        try:
            await raw(generator.randbytes(size))
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert _info(_details(error)).reason in ("INVALID_MESSAGE", "INVALID_UTF8", "INVALID_FIELD")
        else:
            pytest.fail("random bytes were translated")
    await _still_serves(stub)


async def test_a_message_over_the_limit_is_refused_by_grpc(stub: TranslationServiceStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Translate(TranslateRequest(contents=["a" * 5_000_000]))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await _still_serves(stub)


class _Held:
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

    def __enter__(self) -> _Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go.set()


async def test_a_cancelled_call_and_a_deadline_stop_the_work_and_are_counted_as_such(
    server: Server, stub: TranslationServiceStub
) -> None:
    many = TranslateRequest(contents=["a b c. abcdefghij"] * 200)
    with _Held(server, "letters"):
        call = stub.Translate(many)
        await _until(lambda: _value(server, "heed_requests_running", model="letters") > 0)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await _until(lambda: _value(server, "heed_failures_total", reason="CANCELLED") == 1)
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await stub.Translate(many, timeout=0.2)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await _until(lambda: _value(server, "heed_failures_total", reason="DEADLINE_EXCEEDED") == 1)
    for code in ("CANCELLED", "DEADLINE_EXCEEDED"):
        assert await asyncio.to_thread(_value, server, "grpc_server_handled_total", grpc_code=code) == 1
    await _until(lambda: _value(server, "heed_queue_tokens", model="letters") == 0)
    # Held before their first step: none was decoded further.
    assert await asyncio.to_thread(_value, server, "heed_target_tokens_total", model="letters") == 0
    await _still_serves(stub)


async def test_a_deadline_of_a_millisecond(server: Server, stub: TranslationServiceStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await stub.Translate(TranslateRequest(contents=["a b c. abcdefghij"] * 1000), timeout=0.001)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await _until(lambda: _value(server, "heed_queue_tokens", model="letters") == 0)
    await _still_serves(stub)


async def test_a_full_queue_is_refused_with_when_to_come_back() -> None:
    server = Server(tiny_settings(queue_tokens=4000))
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = TranslationServiceStub(channel)
            with _Held(server, "letters"):
                held = asyncio.ensure_future(_all(stub, 120))  # (4 source + 24 target tokens) x 120 = 3,360
                await _until(lambda: _value(server, "heed_queue_tokens", model="letters") == 3360)
                for count in (25, 60):  # one too many, and many
                    with pytest.raises(grpc.aio.AioRpcError) as refused:
                        await stub.Translate(TranslateRequest(contents=["abc"] * count))
                    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                    assert _info(_details(refused.value)).reason == "QUEUE_FULL"
                    assert dict(refused.value.trailing_metadata() or ())["grpc-retry-pushback-ms"] == "200"
                numbers = await stub.Translate(TranslateRequest(model="numbers", contents=["1 2"]))
                assert numbers.translations[0].status.code == 0  # each model has a queue of its own
            assert await held == 120
            code, info = await _refused(stub.Translate(TranslateRequest(contents=["abc"] * 900)))
            assert (code, info.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "contents")
            assert await asyncio.to_thread(_value, server, "heed_shed_total", cause="queue_full") == 2
    finally:
        await server.stop()


async def test_a_flood_of_heads_costs_nothing(stub: TranslationServiceStub) -> None:
    options = {"view": "ATTENTION_VIEW_WORD", "heads": [0] * 400_000}
    reply = await stub.Translate(TranslateRequest(contents=["abc"], attention=options))
    (matrix,) = reply.translations[0].hypotheses[0].attention.matrices
    assert list(matrix.heads) == [0]


async def _all(stub: TranslationServiceStub, count: int) -> int:
    reply: TranslateResponse = await stub.Translate(TranslateRequest(contents=["abc"] * count))
    return sum(item.status.code == 0 for item in reply.translations)


@pytest.mark.parametrize("name", ["manifest.json", "encode.onnx", "weights.safetensors", "source.spm"])
async def test_a_changed_byte_refuses_one_model_and_the_rest_serves(bundles: Path, name: str) -> None:
    path = bundles / "letters" / "1" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    server = Server(tiny_settings(models=bundles))
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = TranslationServiceStub(channel)
            code, info = await _refused(stub.Translate(TranslateRequest(model="letters", contents=["abc"])))
            assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE_REFUSED")
            reply = await stub.Translate(TranslateRequest(model="numbers", contents=["1 2"]))
            assert reply.translations[0].status.code == 0
            listed = {(m.name, m.version): m for m in (await stub.ListModels(ListModelsRequest())).models}
            assert listed["letters", 1].state == model_pb2.MODEL_STATE_REFUSED
            assert name in listed["letters", 1].status.message
            assert listed["numbers", 2].state == model_pb2.MODEL_STATE_READY
            health = health_pb2_grpc.HealthStub(channel)
            checked = await health.Check(health_pb2.HealthCheckRequest(service="heed.v1.TranslationService/letters"))
            assert checked.status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert _value(server, "heed_model_load_failures_total", model="letters") == 1
            assert _value(server, "heed_model_ready", model="letters", version="1") == 0
    finally:
        await server.stop()


async def test_an_older_version_serves_where_the_newest_is_refused(bundles: Path) -> None:
    (bundles / "numbers" / "2" / "weights.safetensors").write_bytes(b"")
    server = Server(tiny_settings(models=bundles))
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = TranslationServiceStub(channel)
            reply = await stub.Translate(TranslateRequest(model="numbers", contents=["1 2"]))
            assert reply.version == 1
            code, _ = await _refused(stub.Translate(TranslateRequest(model="numbers", version=2, contents=["1"])))
            assert code is grpc.StatusCode.FAILED_PRECONDITION
    finally:
        await server.stop()


# --- starting and stopping -----------------------------------------------------------------------------------


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
        with _Held(server, "letters"):
            running = asyncio.ensure_future(_all(stub, 500))
            await _until(lambda: _value(server, "heed_requests_running", model="letters") > 0)
            stopping = asyncio.ensure_future(server.stop())
            assert (await watch.read()).status == 2
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == 2
            numbers = await stub.Translate(TranslateRequest(model="numbers", contents=["1 2"]))
            assert numbers.translations[0].status.code == 0  # the pause: who has not looked away yet is served
            await _until(lambda: bool(server._translator and server._translator._draining))
            code, info = await _refused(stub.Translate(TranslateRequest(contents=["abc"])))
            assert (code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert await running == 500
        started = time.monotonic()
        await stopping
        assert time.monotonic() - started < 4  # of 5 seconds' grace, which the watch alone would take
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Translate(TranslateRequest(contents=["abc"]))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


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
            code, info = await _refused(call)
            assert (code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "LOADING")
    await loading.stop(None)


# --- models, health, reflection ------------------------------------------------------------------------------


async def test_models_are_described(stub: TranslationServiceStub) -> None:
    found = (await stub.GetModel(GetModelRequest(model="letters"))).model
    assert (found.name, found.version, found.state, found.is_default) == ("letters", 1, 1, True)
    assert found.execution_provider == "CPUExecutionProvider"
    assert (found.limits.max_source_tokens, found.limits.max_target_tokens) == (64, 24)
    assert [(entry.name, entry.kind, entry.heads) for entry in found.attention_maps] == [("cross", 1, 1)]
    assert found.capabilities.generation == model_pb2.GENERATION_AUTOREGRESSIVE
    assert dict(found.scores) == {"made_up": 0.5}
    assert list(found.source_language_codes) == ["x-letters"]
    code, _ = await _refused(stub.GetModel(GetModelRequest(model="letters", version=4)))
    assert code is grpc.StatusCode.NOT_FOUND
    code, _ = await _refused(stub.GetModel(GetModelRequest()))
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


# --- metrics -------------------------------------------------------------------------------------------------


def _value(server: Server, name: str, **labels: str) -> float:
    """One sample of the metrics page; 0 when it is not there yet."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=5) as page:
        text = page.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "never came true"
        await asyncio.sleep(0.005)


async def test_metrics_are_right_after_a_known_sequence_of_calls(
    server: Server, stub: TranslationServiceStub, channel: grpc.aio.Channel
) -> None:
    first = await stub.Translate(TranslateRequest(contents=["abc", "", "cab"]))
    options = {"view": "ATTENTION_VIEW_TOKEN"}
    second = await stub.Translate(TranslateRequest(contents=["a b"], attention=options))
    await stub.ListModels(ListModelsRequest())
    for request in (TranslateRequest(contents=["a"], model="nobody"), TranslateRequest()):
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Translate(request)
    with pytest.raises(grpc.aio.AioRpcError):
        await channel.unary_unary("/heed.v1.TranslationService/Nothing")(b"")
    answers = [item.hypotheses[0] for item in (*first.translations, *second.translations) if item.hypotheses]
    matrix = second.translations[0].hypotheses[0].attention.matrices[0]
    translate = {"grpc_service": "heed.v1.TranslationService", "grpc_method": "Translate", "grpc_type": "unary"}
    letters = {"model": "letters", "version": "1"}
    expected: list[tuple[str, dict[str, str], float]] = [
        ("grpc_server_started_total", translate, 4),
        ("grpc_server_handled_total", translate | {"grpc_code": "OK"}, 2),
        ("grpc_server_handled_total", translate | {"grpc_code": "NOT_FOUND"}, 1),
        ("grpc_server_handled_total", translate | {"grpc_code": "INVALID_ARGUMENT"}, 1),
        ("grpc_server_handled_total", {"grpc_method": "ListModels", "grpc_code": "OK"}, 1),
        ("grpc_server_handled_total", {"grpc_method": "Nothing"}, 0),
        ("grpc_server_handling_seconds_count", translate, 4),
        ("grpc_server_msg_received_total", translate, 4),
        ("grpc_server_msg_sent_total", translate, 2),
        ("heed_sentences_total", letters, 3),
        ("heed_failures_total", {"reason": "EMPTY_TEXT"}, 1),
        ("heed_failures_total", {"reason": "NOT_FOUND"}, 1),
        ("heed_failures_total", {"reason": "INVALID_FIELD"}, 1),
        ("heed_source_tokens_total", letters, 12),
        ("heed_target_tokens_total", letters, sum(len(best.tokens) for best in answers)),
        ("heed_finished_total", letters, 3),
        ("heed_dropped_sentences_total", letters, 0),
        ("heed_phase_seconds_count", {"phase": "tokenize"}, 4),
        ("heed_phase_seconds_count", {"phase": "decode"}, 3),
        ("heed_phase_seconds_count", {"phase": "attention"}, 1),
        ("heed_phase_seconds_count", {"phase": "serialize"}, 4),
        ("heed_attention_requests_total", {"view": "token"}, 1),
        ("heed_attention_bytes_total", {"view": "token"}, len(matrix.data)),
        ("heed_attention_normalized_entropy_count", letters, 1),
        ("heed_mean_token_log_probability_count", letters, 3),
        ("heed_queue_tokens", {}, 0),
        ("heed_model_ready", {}, 2),
        ("heed_execution_provider_info", {"provider": "CPUExecutionProvider"}, 2),
        ("heed_draining", {}, 0),
        ("heed_build_info", {}, 1),
    ]
    found = await asyncio.to_thread(lambda: [_value(server, name, **labels) for name, labels, _ in expected])
    assert list(zip(expected, found, strict=True)) == [(entry, entry[2]) for entry in expected]
