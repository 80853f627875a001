"""A model that reads the sentences before each: the context is that sentence's own, whoever shares its batch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.manifest import AttentionVariant
from service.bundle.repository import Bundle, Repository
from service.bundle.tokenizer import EOS_ID
from service.engine.engine import _ENCODE_TOKENS, Engine, EngineSettings, _encode_groups, _padded
from service.engine.errors import QueueFullError
from service.engine.hypothesis import Hypothesis
from service.engine.onnx_model import GrowingAxis, OnnxModel
from service.engine.sentence import Sentence, SentenceRequest
from tests.conftest import FAMILIES

SENTENCES = 3
WISHES: tuple[AttentionVariant, ...] = ("full", "alignment", "none")


@pytest.fixture(scope="module")
def stories() -> Bundle:
    return Repository(FAMILIES).load("stories", 1)


@pytest.fixture(scope="module")
def model(stories: Bundle) -> OnnxModel:
    return OnnxModel(stories, "cpu")


@pytest.fixture(scope="module")
def one_by_one(model: OnnxModel) -> Iterator[Engine]:
    """An engine whose only row is never shared."""
    running = Engine(model, EngineSettings(workers=1, rows_per_worker=1))
    yield running
    running.stop()


def _ids(generator: random.Random, most: int) -> tuple[int, ...]:
    return (*(generator.randrange(4, 24) for _ in range(generator.randint(1, most))), EOS_ID)


def _requests(
    seed: int, count: int, wishes: Sequence[AttentionVariant] = ("full",), fewest: int = 0
) -> list[SentenceRequest]:
    """Sentences of 1 to 30 words, each behind ``fewest`` to three others of 1 to 30 words."""
    generator = random.Random(seed)
    return [
        SentenceRequest(
            _ids(generator, 30),
            max_target_tokens=24,
            attention=generator.choice(wishes),
            context_ids=tuple(_ids(generator, 30) for _ in range(generator.randint(fewest, SENTENCES))),
        )
        for _ in range(count)
    ]


def _best(engine: Engine, requests: Sequence[SentenceRequest]) -> list[Hypothesis]:
    return [result.hypotheses[0] for result in engine.translate(requests)]


def _is_a_tie(one: Hypothesis, other: Hypothesis) -> bool:
    """Rounding chose between two tokens that the model finds equally good."""
    pairs = zip(one.target_ids, other.target_ids, strict=False)
    place = next(i for i, (a, b) in enumerate(pairs) if a != b)
    return bool(abs(one.log_probabilities[place] - other.log_probabilities[place]) < 1e-5)


@given(seed=st.integers(0, 2**32), rows=st.integers(1, 9), workers=st.integers(1, 3))
@settings(max_examples=10, deadline=None)
def test_alone_or_among_other_documents_the_answer_is_one(
    model: OnnxModel, one_by_one: Engine, seed: int, rows: int, workers: int
) -> None:
    """Whatever the neighbours have before them, how long it is, and what attention they ask for."""
    requests = _requests(seed, 16, WISHES)
    expected = _best(one_by_one, requests)
    engine = Engine(model, EngineSettings(workers=workers, rows_per_worker=rows))
    try:
        found = _best(engine, requests)
    finally:
        engine.stop()
    ties = 0
    for one, other in zip(expected, found, strict=True):
        if one.target_ids != other.target_ids:
            assert _is_a_tie(one, other)
            ties += 1
            continue
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-4, rtol=1e-4)
        assert one.attention.keys() <= other.attention.keys()  # a neighbour may have asked for more
        for name, weights in one.attention.items():
            np.testing.assert_allclose(weights, other.attention[name], atol=1e-4)
    assert ties <= 1


def test_a_sentence_is_read_in_its_own_context(model: OnnxModel, one_by_one: Engine) -> None:
    """One sentence eight times in one batch, behind other sentences each time: each answer is that of its context."""
    contexts = [request.context_ids for request in _requests(7, 7, fewest=1)]
    source = _requests(8, 1)[0]
    requests = [replace(source, context_ids=context) for context in [(), *contexts]]
    engine = Engine(model, EngineSettings(workers=1, rows_per_worker=8))
    try:
        found = [best.target_ids for best in _best(engine, requests)]
    finally:
        engine.stop()
    assert found == [best.target_ids for best in _best(one_by_one, requests)]
    assert len(set(found)) > len(found) // 2


@pytest.mark.parametrize("place", range(SENTENCES))
def test_each_of_the_sentences_before_is_read(one_by_one: Engine, place: int) -> None:
    """Another word in any one of them changes the probabilities."""
    changed = 0
    for request in _requests(9, 6, fewest=SENTENCES):
        context = list(request.context_ids)
        context[place] = (4 + (context[place][0] - 3) % 20, *context[place][1:])
        one, other = _best(one_by_one, [request, replace(request, context_ids=tuple(context))])
        changed += not np.array_equal(one.log_probabilities, other.log_probabilities)
    assert changed == 6


def test_the_maps_are_of_the_words_and_the_sentences_before(one_by_one: Engine) -> None:
    requests = _requests(3, 24)
    assert {len(request.context_ids) for request in requests} == {0, 1, 2, 3}
    for request, best in zip(requests, _best(one_by_one, requests), strict=True):
        assert best.attention.keys() == {"cross", "context", "context-sentences"}
        lengths = [len(ids) for ids in request.context_ids]
        target = len(best.target_ids)
        words, sentences = best.attention["context"], best.attention["context-sentences"]
        assert words.shape == (target, 1, sum(lengths))
        assert sentences.shape == (target, 1, len(lengths))
        assert best.attention["cross"].shape == (target, 1, len(request.source_ids))
        np.testing.assert_allclose(best.attention["cross"].sum(-1), 1.0, atol=1e-5)
        if not lengths:
            continue
        np.testing.assert_allclose(words.sum(-1), 1.0, atol=1e-5)
        np.testing.assert_allclose(sentences.sum(-1), 1.0, atol=1e-5)
        of_each = np.split(words, np.cumsum(lengths)[:-1], axis=-1)
        np.testing.assert_allclose(np.stack([part.sum(-1) for part in of_each], axis=-1), sentences, atol=1e-5)


def test_an_alignment_alone_costs_no_map_of_the_context(one_by_one: Engine) -> None:
    (best,) = _best(one_by_one, _requests(5, 1, ("alignment",), fewest=1))
    assert best.attention.keys() == {"cross"}


def test_the_memory_of_the_context_grows_with_the_context(model: OnnxModel) -> None:
    assert model.context_sentences == SENTENCES
    assert model.growing_axes["memory_keys"] == GrowingAxis(1, "source")
    assert model.growing_axes["memory_context_keys"] == GrowingAxis(2, "context")
    assert model.growing_axes["memory_context_lengths"] is None


def test_a_sentence_costs_what_is_read_before_it() -> None:
    request = SentenceRequest((5, 6, EOS_ID), max_target_tokens=24, context_ids=((7, EOS_ID), (8, 9, 10, EOS_ID)))
    assert request.source_tokens == 3 + 2 + 4
    assert Sentence(request, Future(), submitted=0.0).cost_tokens == 3 + 2 + 4 + 24


def test_the_queue_is_full_of_contexts_too(model: OnnxModel) -> None:
    """Two sentences that fit by themselves do not fit with what stands before them."""
    plain = SentenceRequest((5, 6, EOS_ID), max_target_tokens=4)
    told = replace(plain, context_ids=((7, 8, EOS_ID),) * SENTENCES)
    engine = Engine(model, EngineSettings(workers=1, queue_tokens=16 + 15))
    try:
        assert len(engine.translate([plain] * 4)) == 4
        with pytest.raises(QueueFullError) as refused:
            engine.submit([told] * 2)
        assert refused.value.wanted_tokens == 2 * (3 + 9 + 4)
        assert len(engine.translate([told])) == 1
    finally:
        engine.stop()


@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 300), st.lists(st.integers(1, 300), max_size=SENTENCES)), min_size=1, max_size=120
    )
)
@settings(deadline=None, max_examples=50)
def test_what_is_encoded_together_is_bounded_with_its_padding(shapes: list[tuple[int, list[int]]]) -> None:
    """Sentence and context are padded apart: short ones with long contexts must not widen long ones without."""
    sentences = [
        Sentence(
            SentenceRequest((5,) * length, 9, context_ids=tuple((5,) * other for other in context)),
            Future(),
            submitted=0.0,
        )
        for length, context in shapes
    ]
    groups = _encode_groups(sentences, SENTENCES)
    assert sorted(map(id, (sentence for group in groups for sentence in group))) == sorted(map(id, sentences))
    for group in groups:
        feeds = _padded(group, sentences=SENTENCES)
        padded = feeds["source_ids"].size + feeds["context_ids"].size
        assert len(group) == 1 or padded <= _ENCODE_TOKENS + len(group) * SENTENCES
