"""A one-shot model over the wire: every place it wrote, every place it read, five maps of five scopes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from heed.v1 import attention_pb2, model_pb2
from heed.v1.translation_pb2 import FINISH_REASON_END_OF_SENTENCE, DecodingOptions
from heed.v1.translation_service_pb2 import GetModelRequest, ScorePair, ScoreRequest, TranslateRequest
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

from service.client import unpack
from service.rpc.server import Server
from tests.conftest import EXPORTED, tiny_settings
from tests.rpc.calls import refused, value

SOURCE, TARGET = "7 12 7 31 5", "5 31 7 12 7"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    (tmp_path / "sandglass-reverse").symlink_to(EXPORTED / "sandglass-reverse")
    running = Server(tiny_settings(models=tmp_path))
    await running.start()
    yield running
    await running.stop()


async def _translate(stub: TranslationServiceStub, text: str = SOURCE, **options: object) -> object:
    attention = attention_pb2.AttentionOptions(**options)
    reply = await stub.Translate(TranslateRequest(contents=[text], attention=attention))
    assert reply.translations[0].status.code == 0
    return reply.translations[0]


async def test_the_text_has_no_special_token_and_the_tokens_have_all(stub: TranslationServiceStub) -> None:
    found = await _translate(stub, view=attention_pb2.ATTENTION_VIEW_ALIGNMENT)
    best = found.hypotheses[0]
    assert best.text == TARGET
    assert best.finish_reason == FINISH_REASON_END_OF_SENTENCE
    pieces = [token.piece.strip("▁") for token in best.tokens]
    assert pieces == [*["<pad>"] * 18, "</s>", *TARGET.split()]
    assert [token.special for token in best.tokens] == [True] * 19 + [False] * 5
    plain = [best.text[token.begin_offset : token.end_offset] for token in best.tokens if not token.special]
    assert plain == TARGET.split()
    read = [token.piece.strip("▁") for token in found.source_tokens]
    assert read == [*SOURCE.split(), "</s>", *["<pad>"] * 18]
    assert best.log_probability == pytest.approx(sum(token.log_probability for token in best.tokens), abs=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 2},
        {"min_output_tokens": 3},
        {"repetition_penalty": 1.1},
        {"suppressed_pieces": ["▁1"]},
        {"max_output_tokens": 5},
    ],
    ids=str,
)
async def test_it_has_no_search(stub: TranslationServiceStub, options: dict[str, object]) -> None:
    decoding = DecodingOptions(**options)
    code, info = await refused(stub.Translate(TranslateRequest(contents=[SOURCE], decoding=decoding)))
    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ONE_SHOT")


async def test_it_has_no_prefix_and_judges_nothing(stub: TranslationServiceStub) -> None:
    code, info = await refused(stub.Translate(TranslateRequest(contents=[SOURCE], target_prefixes=["5"])))
    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_PREFIX")
    code, info = await refused(stub.Score(ScoreRequest(pairs=[ScorePair(source=SOURCE, target=TARGET)])))
    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_SCORING")


async def test_five_maps_with_their_scopes_and_units(stub: TranslationServiceStub) -> None:
    best = (await _translate(stub, view=attention_pb2.ATTENTION_VIEW_FULL)).hypotheses[0]
    found = {matrix.map: matrix for matrix in best.attention.matrices}
    assert {name: matrix.scope_tokens for name, matrix in found.items()} == {"1": 1, "2a": 4, "2b": 1, "3": 6, "4": 9}
    for name, matrix in found.items():
        weights = unpack(matrix)
        blocks = name == "4"
        assert list(matrix.shape) == [1, 6, 6] if blocks else [1, 24, 24]
        assert matrix.tokens_per_unit == (4 if blocks else 1)
        assert matrix.unit == (attention_pb2.ATTENTION_UNIT_BLOCK if blocks else attention_pb2.ATTENTION_UNIT_TOKEN)
        assert matrix.layer == int(name[0]) - 1
        np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-5)
    # Map 1 sees what a token is, and nothing of its place: the sevens get the same weight.
    rows = unpack(found["1"])[0]
    np.testing.assert_allclose(rows[:, 0], rows[:, 2], rtol=0, atol=1e-6)


async def test_words_and_links_pass_over_padding(stub: TranslationServiceStub) -> None:
    found = await _translate(stub, view=attention_pb2.ATTENTION_VIEW_WORD, maps=["1", "4"])
    best = found.hypotheses[0]
    by_word, by_block = best.attention.matrices
    assert by_word.unit == attention_pb2.ATTENTION_UNIT_WORD
    assert list(by_word.shape) == [1, len(best.words), len(found.source_words)]
    assert (by_block.unit, list(by_block.shape)) == (attention_pb2.ATTENTION_UNIT_BLOCK, [1, 6, 6])
    linked = {
        (best.words[link.target_word].text, found.source_words[link.source_word].text) for link in best.attention.links
    }
    assert linked == {("5", "5"), ("31", "31"), ("7", "7"), ("12", "12")}
    assert all(not best.words[link.target_word].special for link in best.attention.links)
    measures = best.attention.measures
    assert len(measures.coverage) == len(measures.normalized_entropy) == 5
    content = [token.log_probability for token in best.tokens if token.piece != "<pad>"]
    assert measures.mean_token_log_probability == pytest.approx(sum(content) / len(content), abs=1e-6)
    assert 0 < measures.end_of_sentence_mass < 1


async def test_its_capabilities_say_what_it_is(stub: TranslationServiceStub) -> None:
    model = (await stub.GetModel(GetModelRequest(model="sandglass-reverse"))).model
    assert model.capabilities == model_pb2.ModelCapabilities(generation=model_pb2.GENERATION_ONE_SHOT)
    assert {entry.name: entry.tokens_per_unit for entry in model.attention_maps}["4"] == 4


async def test_a_pass_cannot_be_cut_short(stub: TranslationServiceStub) -> None:
    call = stub.Translate(TranslateRequest(contents=[SOURCE], decoding=DecodingOptions(max_output_tokens=5)))
    code, found = await refused(call)
    assert (code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ONE_SHOT")
    whole = TranslateRequest(contents=[SOURCE], decoding=DecodingOptions(max_output_tokens=24))
    assert (await stub.Translate(whole)).translations[0].hypotheses[0].text == TARGET


async def test_too_long_and_unknown_numbers(stub: TranslationServiceStub) -> None:
    """22 numbers fit; one more is refused by itself; an unknown one is read as nothing, and loses nobody else."""
    numbers = [str(2 + i) for i in range(23)]
    texts = [" ".join(numbers[:22]), " ".join(numbers), "5 77 9", SOURCE]
    reply = await stub.Translate(TranslateRequest(contents=texts))
    fits, too_long, unknown, plain = reply.translations
    assert fits.hypotheses[0].text == " ".join(reversed(numbers[:22]))
    assert "24 tokens; sandglass-reverse allows 23" in too_long.status.message
    assert unknown.status.code == 0
    assert plain.hypotheses[0].text == TARGET


async def test_a_pass_is_counted(server: Server, stub: TranslationServiceStub) -> None:
    await stub.Translate(TranslateRequest(contents=[SOURCE, SOURCE]))
    labels = {"model": "sandglass-reverse"}
    assert value(server, "heed_source_tokens_total", **labels) >= 12
    assert value(server, "heed_onnxruntime_run_seconds_count", graph="one_shot", **labels) >= 1
    assert value(server, "heed_onnxruntime_run_seconds_count", graph="decode_step", **labels) == 0
