"""Bad input: the documented status and detail, and the server goes on."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from heed.v1 import model_pb2
from heed.v1.translation_service_pb2 import ListModelsRequest, TranslateRequest
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

from service.rpc.server import Server
from tests.conftest import tiny_settings
from tests.rpc.calls import Held, details, info, refused, still_serves, translated_all, until, value

TRANSLATE = "/heed.v1.TranslationService/Translate"


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
    status, found = await refused(stub.Translate(request_))
    assert (status.name, found.reason) == (code, reason)
    await still_serves(stub)


@pytest.mark.parametrize("sent", ["x" * 3000, "é" * 3000, "😀" * 100_000])
@pytest.mark.parametrize(
    ("field", "code", "reason"),
    [
        ("model", "NOT_FOUND", "NOT_FOUND"),
        ("source_language_code", "NOT_FOUND", "NOT_FOUND"),
        ("mime_type", "INVALID_ARGUMENT", "INVALID_FIELD"),
        ("attention", "FAILED_PRECONDITION", "NO_SUCH_ATTENTION_MAP"),
    ],
)
async def test_what_is_quoted_in_an_error_fits_into_a_header(
    stub: TranslationServiceStub, field: str, code: str, reason: str, sent: str
) -> None:
    """A client refuses longer ones, and with them the status."""
    request = TranslateRequest(contents=["a"], target_language_code="en" if field == "source_language_code" else "")
    if field == "attention":
        request.attention.view = 2
        request.attention.maps.append(sent)
    else:
        setattr(request, field, sent)
    status, found = await refused(stub.Translate(request))
    assert (status.name, found.reason) == (code, reason)
    if field == "source_language_code":
        request.model = "letters"
        status, found = await refused(stub.Translate(request))
        assert (status.name, found.reason) == (code, reason)


@pytest.mark.parametrize("text", ["\u200b", "\ufeff", " \u200d\u2060\n", "\x00\x07"])
async def test_a_text_of_nothing_visible_is_empty(stub: TranslationServiceStub, text: str) -> None:
    reply = await stub.Translate(TranslateRequest(contents=[text, "abc"]))
    failed, good = reply.translations
    assert failed.status.message == "contents[0]: empty"
    assert good.hypotheses


async def test_long_texts_that_are_too_much_are_refused_and_others_are_served_meanwhile(
    server: Server, stub: TranslationServiceStub
) -> None:
    texts = ["ab " * 6000] * 200
    request = TranslateRequest(contents=texts, sentence_splitting="SENTENCE_SPLITTING_SENTENCES")
    long = asyncio.ensure_future(refused(stub.Translate(request)))
    await still_serves(stub)
    status, found = await long
    assert (status.name, found.reason) == ("INVALID_ARGUMENT", "CALL_TOO_LARGE")
    assert found.metadata["field"] == "contents"


async def test_invalid_utf8_and_random_bytes_are_invalid_arguments(
    channel: grpc.aio.Channel, stub: TranslationServiceStub
) -> None:
    raw = channel.unary_unary(TRANSLATE)
    data = TranslateRequest(contents=["abc", "XX"]).SerializeToString().replace(b"XX", b"\xc3\x28")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(data)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert info(details(caught.value)).reason == "INVALID_UTF8"
    assert caught.value.details() == "contents[1]: not valid UTF-8"
    generator = random.Random(0)
    for size in (1, 7, 100, 5000):
        try:
            await raw(generator.randbytes(size))
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert info(details(error)).reason in ("INVALID_MESSAGE", "INVALID_UTF8", "INVALID_FIELD")
        else:
            pytest.fail("random bytes were translated")
    await still_serves(stub)


async def test_a_message_over_the_limit_is_refused_by_grpc(stub: TranslationServiceStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Translate(TranslateRequest(contents=["a" * 5_000_000]))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await still_serves(stub)


async def test_a_cancelled_call_and_a_deadline_stop_the_work_and_are_counted_as_such(
    server: Server, stub: TranslationServiceStub
) -> None:
    many = TranslateRequest(contents=["a b c. abcdefghij"] * 200)
    with Held(server, "letters"):
        call = stub.Translate(many)
        await until(lambda: value(server, "heed_requests_running", model="letters") > 0)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: value(server, "heed_failures_total", reason="CANCELLED") == 1)
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await stub.Translate(many, timeout=0.2)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: value(server, "heed_failures_total", reason="DEADLINE_EXCEEDED") == 1)
    for code in ("CANCELLED", "DEADLINE_EXCEEDED"):
        assert await asyncio.to_thread(value, server, "grpc_server_handled_total", grpc_code=code) == 1
    await until(lambda: value(server, "heed_queue_tokens", model="letters") == 0)
    # Held before their first step: none was decoded further.
    assert await asyncio.to_thread(value, server, "heed_target_tokens_total", model="letters") == 0
    await still_serves(stub)


async def test_a_deadline_of_a_millisecond(server: Server, stub: TranslationServiceStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await stub.Translate(TranslateRequest(contents=["a b c. abcdefghij"] * 1000), timeout=0.001)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: value(server, "heed_queue_tokens", model="letters") == 0)
    await still_serves(stub)


async def test_a_full_queue_is_refused_with_when_to_come_back() -> None:
    server = Server(tiny_settings(queue_tokens=4000))
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = TranslationServiceStub(channel)
            with Held(server, "letters"):
                held = asyncio.ensure_future(translated_all(stub, 120))  # (4 source + 24 target tokens) x 120 = 3,360
                await until(lambda: value(server, "heed_queue_tokens", model="letters") == 3360)
                for count in (25, 60):  # one too many, and many
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await stub.Translate(TranslateRequest(contents=["abc"] * count))
                    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                    assert info(details(caught.value)).reason == "QUEUE_FULL"
                    assert dict(caught.value.trailing_metadata() or ())["grpc-retry-pushback-ms"] == "200"
                numbers = await stub.Translate(TranslateRequest(model="numbers", contents=["1 2"]))
                assert numbers.translations[0].status.code == 0  # each model has a queue of its own
            assert await held == 120
            code, found = await refused(stub.Translate(TranslateRequest(contents=["abc"] * 900)))
            assert (code, found.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "contents")
            assert await asyncio.to_thread(value, server, "heed_shed_total", cause="queue_full") == 2
    finally:
        await server.stop()


async def test_a_flood_of_heads_costs_nothing(stub: TranslationServiceStub) -> None:
    options = {"view": "ATTENTION_VIEW_WORD", "heads": [0] * 400_000}
    reply = await stub.Translate(TranslateRequest(contents=["abc"], attention=options))
    (matrix,) = reply.translations[0].hypotheses[0].attention.matrices
    assert list(matrix.heads) == [0]


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
            code, found = await refused(stub.Translate(TranslateRequest(model="letters", contents=["abc"])))
            assert (code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE_REFUSED")
            reply = await stub.Translate(TranslateRequest(model="numbers", contents=["1 2"]))
            assert reply.translations[0].status.code == 0
            listed = {(m.name, m.version): m for m in (await stub.ListModels(ListModelsRequest())).models}
            assert listed["letters", 1].state == model_pb2.MODEL_STATE_REFUSED
            assert name in listed["letters", 1].status.message
            assert str(bundles) not in listed["letters", 1].status.message
            assert listed["numbers", 2].state == model_pb2.MODEL_STATE_READY
            health = health_pb2_grpc.HealthStub(channel)
            checked = await health.Check(health_pb2.HealthCheckRequest(service="heed.v1.TranslationService/letters"))
            assert checked.status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert value(server, "heed_model_load_failures_total", model="letters") == 1
            assert value(server, "heed_model_ready", model="letters", version="1") == 0
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
            code, _ = await refused(stub.Translate(TranslateRequest(model="numbers", version=2, contents=["1"])))
            assert code is grpc.StatusCode.FAILED_PRECONDITION
    finally:
        await server.stop()
