"""Every option of search over the wire, and what is refused by the name of its field."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
from heed.v1 import attention_pb2, translation_service_pb2
from heed.v1.translation_pb2 import DecodingOptions, SamplingOptions, Translation
from heed.v1.translation_service_pb2 import ScorePair, ScoreRequest, TranslateRequest, TranslateResponse
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

from service.client import unpack
from service.rpc.server import Server
from tests.conftest import FAMILIES, tiny_settings
from tests.rpc.calls import Held, details, refused, until, value

MODEL = "transformer"
TEXTS = ["1 2 3 4", "7", "5 5 5 9 10 11"]
FULL = attention_pb2.AttentionOptions(view=attention_pb2.ATTENTION_VIEW_FULL)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    running = Server(tiny_settings(models=FAMILIES, rows_per_worker=12))
    await running.start()
    yield running
    await running.stop()


def request(texts: list[str] | None = None, model: str = MODEL, **options: Any) -> TranslateRequest:
    outer = {key: options.pop(key) for key in ("attention", "target_prefixes", "priority") if key in options}
    return TranslateRequest(contents=texts or TEXTS, model=model, decoding=DecodingOptions(**options), **outer)


def written(reply: TranslateResponse) -> list[list[tuple[str, float]]]:
    assert all(translation.status.code == 0 for translation in reply.translations)
    return [
        [(hypothesis.text, hypothesis.score) for hypothesis in translation.hypotheses]
        for translation in reply.translations
    ]


async def test_a_beam_gives_its_hypotheses_best_first(stub: TranslationServiceStub) -> None:
    found = written(await stub.Translate(request(beam_size=6, hypotheses=4)))
    assert [len(hypotheses) for hypotheses in found] == [4] * len(TEXTS)
    for hypotheses in found:
        scores = [score for _, score in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert len({text for text, _ in hypotheses}) == 4


async def test_a_beam_of_one_is_greedy_search_is_nothing_said(stub: TranslationServiceStub) -> None:
    plain = await stub.Translate(TranslateRequest(contents=TEXTS, model=MODEL))
    assert written(await stub.Translate(request(beam_size=1, hypotheses=1, length_penalty=0))) == written(plain)
    for hypotheses, translation in zip(written(plain), plain.translations, strict=True):
        assert hypotheses[0][1] == pytest.approx(translation.hypotheses[0].log_probability, abs=1e-4)


async def test_the_score_is_by_its_formula(stub: TranslationServiceStub) -> None:
    reply = await stub.Translate(request(beam_size=4, hypotheses=4, length_penalty=0.7))
    for translation in reply.translations:
        for hypothesis in translation.hypotheses:
            wanted = hypothesis.log_probability / len(hypothesis.tokens) ** 0.7
            assert hypothesis.score == pytest.approx(wanted, abs=1e-4)
    covered = await stub.Translate(request(beam_size=4, hypotheses=2, coverage_penalty=0.5, attention=FULL))
    for translation in covered.translations:
        for hypothesis in translation.hypotheses:
            source = hypothesis.attention.alignment_source
            matrices = {matrix.map: unpack(matrix) for matrix in hypothesis.attention.matrices}
            weights = matrices[source.map][list(source.heads)].mean(0)[:, :-1]  # without `</s>`
            penalty = 0.5 * np.log(np.clip(weights.sum(0), 1e-6, 1.0)).sum()
            assert hypothesis.score == pytest.approx(hypothesis.log_probability + penalty, abs=1e-3)


# --- sampling --------------------------------------------------------------------------------------------------------


async def test_a_seed_draws_the_same_again_and_is_told(stub: TranslationServiceStub) -> None:
    drawn = await stub.Translate(request(hypotheses=3, sampling=SamplingOptions(temperature=2.0)))
    assert drawn.HasField("seed")
    again = SamplingOptions(temperature=2.0, seed=drawn.seed)
    assert written(await stub.Translate(request(hypotheses=3, sampling=again))) == written(drawn)
    other = SamplingOptions(temperature=2.0, seed=drawn.seed ^ 1)
    assert written(await stub.Translate(request(hypotheses=3, sampling=other))) != written(drawn)
    assert not (await stub.Translate(request(beam_size=2))).HasField("seed")


async def test_the_greatest_seed_is_taken(stub: TranslationServiceStub) -> None:
    reply = await stub.Translate(request(sampling=SamplingOptions(seed=2**64 - 1)))
    assert reply.seed == 2**64 - 1


async def test_the_same_text_twice_is_drawn_twice(stub: TranslationServiceStub) -> None:
    reply = await stub.Translate(request(["1 2 3 4"] * 6, sampling=SamplingOptions(temperature=3.0, seed=1)))
    assert len({hypotheses[0][0] for hypotheses in written(reply)}) > 1


# --- what is written -------------------------------------------------------------------------------------------------


async def test_a_prefix_begins_each_translation(stub: TranslationServiceStub) -> None:
    reply = await stub.Translate(request(target_prefixes=["3 4", "", "19"], beam_size=2, hypotheses=2))
    for hypotheses, prefix in zip(written(reply), ("3 4", "", "19"), strict=True):
        assert all(text.startswith(prefix) for text, _ in hypotheses)


async def test_pieces_that_are_suppressed_are_not_written(stub: TranslationServiceStub) -> None:
    plain = await stub.Translate(request())
    pieces = {token.piece for found in plain.translations for token in found.hypotheses[0].tokens if not token.special}
    reply = await stub.Translate(request(suppressed_pieces=sorted(pieces)[:3]))
    after = {token.piece for found in reply.translations for token in found.hypotheses[0].tokens}
    assert not after & set(sorted(pieces)[:3])


async def test_lengths_hold(stub: TranslationServiceStub) -> None:
    reply = await stub.Translate(request(min_output_tokens=9, max_output_tokens=11, beam_size=3, hypotheses=3))
    lengths = [len(hypothesis.tokens) for found in reply.translations for hypothesis in found.hypotheses]
    assert all(9 <= length <= 11 for length in lengths)


async def test_nothing_comes_twice_where_that_is_asked_for(stub: TranslationServiceStub) -> None:
    reply = await stub.Translate(request(no_repeat_ngram_size=1, repetition_penalty=1.5))
    for found in reply.translations:
        ids = [token.id for token in found.hypotheses[0].tokens]
        assert len(set(ids)) == len(ids)


# --- together --------------------------------------------------------------------------------------------------------


async def test_requests_with_different_options_run_in_one_batch(stub: TranslationServiceStub, server: Server) -> None:
    requests = [
        request(TEXTS[:1]),
        request(TEXTS[:1], beam_size=4, hypotheses=2, length_penalty=1.0),
        request(TEXTS[1:2], sampling=SamplingOptions(seed=3), hypotheses=2),
        request(TEXTS[2:], target_prefixes=["4"], repetition_penalty=2.0),
    ]
    alone = [written(await stub.Translate(one)) for one in requests]
    before = value(server, "heed_decode_batch_rows_count", model=MODEL)
    with Held(server, MODEL):
        calls = [asyncio.ensure_future(stub.Translate(one)) for one in requests]
        names = ("heed_requests_waiting", "heed_requests_running")
        await until(lambda: sum(value(server, name, model=MODEL) for name in names) == len(requests))
    together = [written(await call) for call in calls]
    for one, other in zip(alone, together, strict=True):
        for wanted, found in zip(one[0], other[0], strict=True):
            assert found[0] == wanted[0]
            assert found[1] == pytest.approx(wanted[1], abs=1e-4)
    steps = value(server, "heed_decode_batch_rows_count", model=MODEL) - before
    longest = 24  # tokens: one after the other they would take three times as many steps
    assert steps <= 2 * longest + 2


# --- given translations ----------------------------------------------------------------------------------------------


def assert_same_numbers(found: Translation, wanted: Translation, number: int) -> None:
    """The only hypothesis of the one, and this one of the other."""
    (given,), best = found.hypotheses, wanted.hypotheses[number]
    assert [token.id for token in given.tokens] == [token.id for token in best.tokens]
    for one, other in zip(given.tokens, best.tokens, strict=True):
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)
    for one, other in zip(given.attention.matrices, best.attention.matrices, strict=True):
        assert one.map == other.map
        np.testing.assert_allclose(unpack(one), unpack(other), atol=1e-4)


@pytest.mark.parametrize("model", ["transformer", "stories"])
async def test_every_hypothesis_of_a_beam_is_judged_as_it_was_when_it_was_written(
    stub: TranslationServiceStub, model: str
) -> None:
    texts, judged_hypotheses = [str(number) for number in range(12)], 0
    reply = await stub.Translate(request(texts, model, beam_size=8, hypotheses=8, attention=FULL))
    for text, translation in zip(texts, reply.translations, strict=True):
        hypotheses = list(enumerate(translation.hypotheses))
        ended = [number for number, one in hypotheses if one.text and one.tokens[-1].special]
        if not ended:
            continue
        judged_hypotheses += len(ended)
        pairs = [ScorePair(source=text, target=translation.hypotheses[number].text) for number in ended]
        judged = await stub.Score(ScoreRequest(model=model, pairs=pairs, attention=FULL))
        assert len(judged.translations) == len(ended)
        for number, found in zip(ended, judged.translations, strict=True):
            assert_same_numbers(found, translation, number)
    assert judged_hypotheses >= 10


async def test_a_pair_that_is_wrong_does_not_fail_the_others(stub: TranslationServiceStub) -> None:
    pairs = [
        ScorePair(source="1", target="2 3"),
        ScorePair(source="1", target=" "),
        ScorePair(source="", target="2"),
        ScorePair(source="1", target=" ".join(["2"] * 30)),
    ]
    reply = await stub.Score(ScoreRequest(model=MODEL, pairs=pairs))
    assert [found.status.code for found in reply.translations] == [0, 3, 3, 3]
    messages = [found.status.message for found in reply.translations[1:]]
    assert messages[:2] == ["pairs[1].target: empty", "pairs[2].source: empty"]
    assert messages[2] == "pairs[3].target: 31 tokens; 24 are allowed"
    assert reply.translations[0].hypotheses[0].text == "2 3"
    assert not reply.translations[0].hypotheses[0].HasField("attention")


async def test_no_pairs_are_refused(stub: TranslationServiceStub) -> None:
    code, info = await refused(stub.Score(ScoreRequest(model=MODEL)))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert info.metadata["field"] == "pairs"


# --- refused ---------------------------------------------------------------------------------------------------------

SAMPLING = SamplingOptions
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"max_output_tokens": 0}, "decoding.max_output_tokens: 0; transformer allows 1 to 24"),
    ({"max_output_tokens": 25}, "decoding.max_output_tokens: 25; transformer allows 1 to 24"),
    ({"min_output_tokens": -1}, "decoding.min_output_tokens: -1; allowed are 0 to 24"),
    ({"min_output_tokens": 7, "max_output_tokens": 6}, "decoding.min_output_tokens: 7; allowed are 0 to 6"),
    ({"beam_size": 0}, "decoding.beam_size: 0; allowed are 1 to 12"),
    ({"beam_size": 13}, "decoding.beam_size: 13; allowed are 1 to 12"),
    ({"hypotheses": 2}, "decoding.hypotheses: 2; allowed are 1 to 1"),
    ({"hypotheses": 0, "beam_size": 4}, "decoding.hypotheses: 0; allowed are 1 to 4"),
    ({"length_penalty": -1}, "decoding.length_penalty: -1; allowed are 0 to 10"),
    ({"length_penalty": float("nan")}, "decoding.length_penalty: nan; allowed are 0 to 10"),
    ({"coverage_penalty": float("inf")}, "decoding.coverage_penalty: inf; allowed are 0 to 10"),
    ({"repetition_penalty": 0}, "decoding.repetition_penalty: 0; allowed are 0.1 to 10"),
    ({"no_repeat_ngram_size": -2}, "decoding.no_repeat_ngram_size: -2; allowed are 0 to 24"),
    ({"sampling": SAMPLING(temperature=0)}, "decoding.sampling.temperature: 0; allowed are 0.01 to 100"),
    ({"sampling": SAMPLING(top_k=-1)}, "decoding.sampling.top_k: -1; allowed are 0 to 2147483647"),
    ({"sampling": SAMPLING(top_p=1.0000001)}, "decoding.sampling.top_p: 1.00000012; allowed are 1e-06 to 1"),
    ({"suppressed_pieces": ["1"] * 30}, "decoding.suppressed_pieces: 30; the vocabulary has 24"),
    ({"sampling": SAMPLING(top_p=0)}, "decoding.sampling.top_p: 0; allowed are 1e-06 to 1"),
    ({"sampling": SAMPLING(), "beam_size": 2}, "decoding.beam_size: 2; with sampling it is 1: choose one"),
    ({"sampling": SAMPLING(), "hypotheses": 13}, "decoding.hypotheses: 13; allowed are 1 to 12"),
    (
        {"suppressed_pieces": ["▁1", "nonsense"]},
        "decoding.suppressed_pieces[1]: 'nonsense' is no piece of transformer/1's target vocabulary",
    ),
    (
        {"suppressed_pieces": ["</s>"]},
        "decoding.suppressed_pieces[0]: '</s>' ends a translation: set decoding.min_output_tokens",
    ),
    ({"target_prefixes": ["1"]}, "target_prefixes: 1 prefixes for 3 texts; send none or as many"),
    ({"priority": 9}, "priority: 9; choose LOW, NORMAL, HIGH or leave it out"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[message for _, message in WRONG])
async def test_what_is_wrong_is_told_by_its_field(
    stub: TranslationServiceStub, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Translate(request(**options))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert details(caught.value).message == message


@pytest.mark.parametrize(
    "options",
    [
        {"sampling": SAMPLING(temperature=0.01, top_p=1e-6)},
        {"sampling": SAMPLING(temperature=100, top_k=2**31 - 1, top_p=1)},
        {"beam_size": 12, "hypotheses": 12, "length_penalty": 10, "coverage_penalty": 10},
        {"repetition_penalty": 0.1},
    ],
    ids=["least draws", "greatest draws", "widest beam", "least penalty"],
)
async def test_the_ends_of_a_range_are_in_it(stub: TranslationServiceStub, options: dict[str, Any]) -> None:
    """The wire's fractions are float32, and float32 has 0.01 below 0.01."""
    reply = await stub.Translate(request(**options))
    assert [translation.status.code for translation in reply.translations] == [0] * len(TEXTS)


async def test_what_the_model_cannot_write_is_no_prefix_and_is_not_judged(stub: TranslationServiceStub) -> None:
    reply = await stub.Translate(request(target_prefixes=["1", "1 漢字 2", ""]))
    assert [found.status.code for found in reply.translations] == [0, 3, 0]
    problem = "'漢字' is not in transformer/1's target vocabulary"
    assert reply.translations[1].status.message == f"target_prefixes[1]: {problem}"
    judged = await stub.Score(ScoreRequest(model=MODEL, pairs=[ScorePair(source="1", target="2 漢字")]))
    assert judged.translations[0].status.message == f"pairs[0].target: {problem}"


async def test_a_given_translation_costs_what_it_is_and_no_more(server: Server) -> None:
    """Of a queue that holds 200 tokens: three searches, or twenty pairs."""
    small = Server(tiny_settings(models=FAMILIES, queue_tokens=200))
    await small.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{small.port}") as channel:
            stub = TranslationServiceStub(channel)
            pairs = [ScorePair(source="1 2", target="3 4")] * 20
            judged = await stub.Score(ScoreRequest(model=MODEL, pairs=pairs))
            assert [found.status.code for found in judged.translations] == [0] * 20
            code, info = await refused(stub.Score(ScoreRequest(model=MODEL, pairs=pairs * 3)))
            assert (code, info.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "pairs")
            code, info = await refused(stub.Translate(request(["1 2"] * 20)))
            assert (code, info.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "contents")
    finally:
        await small.stop()


async def test_a_prefix_that_leaves_no_room_fails_its_text_alone(stub: TranslationServiceStub) -> None:
    long = " ".join(["1"] * 24)
    reply = await stub.Translate(request(target_prefixes=["1", long, ""]))
    assert [found.status.code for found in reply.translations] == [0, 3, 0]
    assert reply.translations[1].status.message == "target_prefixes[1]: 24 tokens; 23 are allowed"


async def test_a_prefix_of_a_text_that_is_cut_is_refused(stub: TranslationServiceStub) -> None:
    asked = request(["1 2. 3 4."], target_prefixes=["5"])
    asked.sentence_splitting = translation_service_pb2.SENTENCE_SPLITTING_SENTENCES
    (found,) = (await stub.Translate(asked)).translations
    assert found.status.message.startswith("target_prefixes[0]: the text has 2 sentences")


async def test_a_model_that_attends_to_nothing_has_no_coverage(stub: TranslationServiceStub) -> None:
    code, info = await refused(stub.Translate(request(model="bottleneck", beam_size=2, coverage_penalty=0.1)))
    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_ATTENTION")


@pytest.mark.parametrize("priority", translation_service_pb2.Priority.values())
async def test_every_priority_is_served(stub: TranslationServiceStub, priority: int) -> None:
    plain = await stub.Translate(request())
    assert written(await stub.Translate(request(priority=priority))) == written(plain)
