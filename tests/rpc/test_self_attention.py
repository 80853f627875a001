"""A Transformer over the wire: maps of the encoder and of the decoder over themselves; and a model that has none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest
from heed.v1 import attention_pb2
from heed.v1.translation_service_pb2 import GetModelRequest, TranslateRequest
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

from service.client import unpack
from service.rpc.server import Server
from tests.conftest import FAMILIES, tiny_settings
from tests.rpc.calls import refused, value

SOURCE = "1 2 3 4"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    running = Server(tiny_settings(models=FAMILIES))
    await running.start()
    yield running
    await running.stop()


async def _translate(stub: TranslationServiceStub, **options: object) -> object:
    attention = attention_pb2.AttentionOptions(**options)
    reply = await stub.Translate(TranslateRequest(contents=[SOURCE], model="transformer", attention=attention))
    assert reply.translations[0].status.code == 0
    return reply.translations[0]


async def test_every_map_of_every_layer_comes_back(stub: TranslationServiceStub) -> None:
    found = await _translate(stub, view=attention_pb2.ATTENTION_VIEW_FULL)
    best = found.hypotheses[0]
    read, written = len(found.source_tokens), len(best.tokens)
    shapes = {matrix.map: list(matrix.shape) for matrix in best.attention.matrices}
    assert shapes == {
        "encoder-self-0": [2, read, read],
        "encoder-self-1": [2, read, read],
        "decoder-self-0": [2, written, written],
        "cross-0": [2, written, read],
        "decoder-self-1": [2, written, written],
        "cross-1": [2, written, read],
    }
    for matrix in best.attention.matrices:
        np.testing.assert_allclose(unpack(matrix).sum(-1), 1.0, atol=1e-5)
        assert matrix.unit == attention_pb2.ATTENTION_UNIT_TOKEN
    kinds = {matrix.map: matrix.kind for matrix in best.attention.matrices}
    assert kinds["encoder-self-1"] == attention_pb2.ATTENTION_KIND_ENCODER_SELF
    assert kinds["decoder-self-0"] == attention_pb2.ATTENTION_KIND_DECODER_SELF


@pytest.mark.parametrize("view", [attention_pb2.ATTENTION_VIEW_WORD, attention_pb2.ATTENTION_VIEW_FULL])
async def test_rows_of_bytes_keep_their_sum(stub: TranslationServiceStub, view: attention_pb2.AttentionView) -> None:
    """Many small weights, each less than half of a 255th, are not all rounded away."""
    options = attention_pb2.AttentionOptions(view=view)
    request = TranslateRequest(contents=[" ".join(map(str, range(50)))], model="transformer", attention=options)
    exact = (await stub.Translate(request)).translations[0].hypotheses[0].attention.matrices
    request.attention.data_type = attention_pb2.MATRIX_DATA_TYPE_UINT8
    packed = (await stub.Translate(request)).translations[0].hypotheses[0].attention.matrices
    assert len(packed) == len(exact) > 0
    for one, other in zip(packed, exact, strict=True):
        np.testing.assert_allclose(unpack(one).sum(-1), 1.0, atol=1e-6)
        np.testing.assert_allclose(unpack(one), unpack(other), atol=1.001 / 255)


async def test_what_no_reply_can_hold_is_refused_before_it_is_decoded(
    server: Server, stub: TranslationServiceStub
) -> None:
    options = attention_pb2.AttentionOptions(view=attention_pb2.ATTENTION_VIEW_FULL)
    texts = [" ".join(["1"] * 60)] * 1000
    request = TranslateRequest(model="transformer", contents=texts, attention=options)
    status, found = await refused(stub.Translate(request))
    assert (status.name, found.reason) == ("INVALID_ARGUMENT", "REPLY_TOO_LARGE")
    assert await asyncio.to_thread(value, server, "heed_sentences_total", model="transformer") == 0


async def test_a_target_over_itself_looks_back_alone(stub: TranslationServiceStub) -> None:
    best = (await _translate(stub, view=attention_pb2.ATTENTION_VIEW_FULL, maps=["decoder-self-1"])).hypotheses[0]
    (weights,) = (unpack(matrix) for matrix in best.attention.matrices)
    later = np.triu(np.ones(weights.shape[1:], dtype=bool), k=1)
    assert (weights[:, later] == 0).all()
    np.testing.assert_array_equal(weights[:, 0, 0], 1.0)  # the first step has `<s>` alone


async def test_by_words_each_side_has_its_own(stub: TranslationServiceStub) -> None:
    found = await _translate(
        stub, view=attention_pb2.ATTENTION_VIEW_WORD, maps=["encoder-self-0", "decoder-self-0", "cross-1"]
    )
    best = found.hypotheses[0]
    matrices = {matrix.map: matrix for matrix in best.attention.matrices}
    words = len(found.source_words)
    assert list(matrices["encoder-self-0"].shape)[1:] == [words, words]
    assert list(matrices["cross-1"].shape)[1:] == [len(best.words), words]
    # Its columns begin with `<s>` and lack what was written last: they are not the words of the text.
    assert matrices["decoder-self-0"].unit == attention_pb2.ATTENTION_UNIT_TOKEN
    assert list(matrices["decoder-self-0"].shape)[1:] == [len(best.tokens)] * 2


async def test_a_layer_or_a_head_alone(stub: TranslationServiceStub) -> None:
    best = (await _translate(stub, view=attention_pb2.ATTENTION_VIEW_TOKEN, layers=[1], heads=[1])).hypotheses[0]
    assert [matrix.map for matrix in best.attention.matrices] == ["encoder-self-1", "decoder-self-1", "cross-1"]
    assert all(list(matrix.heads) == [1] and matrix.shape[0] == 1 for matrix in best.attention.matrices)


@pytest.mark.parametrize("view", ["ALIGNMENT", "WORD", "TOKEN", "FULL"])
async def test_a_model_without_attention_says_so(stub: TranslationServiceStub, view: str) -> None:
    attention = attention_pb2.AttentionOptions(view=f"ATTENTION_VIEW_{view}")
    code, found = await refused(
        stub.Translate(TranslateRequest(contents=[SOURCE], model="bottleneck", attention=attention))
    )
    assert (code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_ATTENTION")


async def test_a_model_without_attention_translates(stub: TranslationServiceStub) -> None:
    reply = await stub.Translate(TranslateRequest(contents=["1 2 3"], model="bottleneck"))
    assert reply.translations[0].hypotheses[0].text
    model = (await stub.GetModel(GetModelRequest(model="bottleneck"))).model
    assert not model.attention_maps
    assert not model.HasField("alignment_source")
