"""The metrics page after a known sequence of calls."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from heed.v1.translation_service_pb2 import ListModelsRequest, TranslateRequest
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

from service.rpc.server import Server
from tests.rpc.calls import value


async def test_what_a_stream_sends_is_counted(server: Server, channel: grpc.aio.Channel) -> None:
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == 1
    sent = await asyncio.to_thread(value, server, "grpc_server_msg_sent_total", grpc_method="Watch")
    assert sent == 1
    watch.cancel()


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
    found = await asyncio.to_thread(lambda: [value(server, name, **labels) for name, labels, _ in expected])
    assert list(zip(expected, found, strict=True)) == [(entry, entry[2]) for entry in expected]
