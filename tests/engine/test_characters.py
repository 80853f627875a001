"""Whole characters of bytes: what may follow, by every character there is, and through every kind of search."""

from __future__ import annotations

import itertools
from concurrent.futures import wait
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.tokenizer import EOS_ID
from service.engine.characters import NO_BYTES, ByteTokens
from service.engine.decoding import Decoding, Sampling
from service.engine.engine import Engine, EngineSettings
from service.engine.hypothesis import FinishReason, Floats
from service.engine.search import Search, StepRows, choose_greedily
from service.engine.sentence import SentenceRequest
from tests.engine.fake_model import CopyModel

FIRST = 4  # behind the special tokens
BYTES = ByteTokens({FIRST + value: value for value in range(256)})
WORDS = range(FIRST + 256, FIRST + 260)
MOST = 40


def tokens_of(text: str) -> list[int]:
    return [FIRST + value for value in text.encode()]


def text_of(tokens: list[int]) -> str:
    """Raises UnicodeDecodeError where a character is broken; a word of the vocabulary is a space here."""
    return bytes(token - FIRST if token - FIRST < 256 else ord(" ") for token in tokens).decode()


@given(st.characters(exclude_categories=["Cs"]))
def test_every_character_can_be_written_and_is_then_whole(character: str) -> None:
    tokens = tokens_of(character)
    for place in range(1, len(tokens)):
        following = BYTES.next(reversed(tokens[:place]))
        assert following is not None
        assert tokens[place] in following
        assert EOS_ID not in following
    assert BYTES.next(reversed(tokens)) is None
    assert tokens[0] not in BYTES.within


def test_what_may_follow_makes_every_sequence_a_character() -> None:
    """All of them: 17 planes without the surrogates."""
    whole = 0
    begun = [[token] for token in range(FIRST, FIRST + 256) if token not in BYTES.within]
    while begun:
        tokens = begun.pop()
        following = BYTES.next(reversed(tokens))
        if following is None:
            whole += len(text_of(tokens))
        elif len(tokens) == 2:  # the rest is any of 64, or any two
            lengths = 4 if tokens[0] - FIRST >= 0xF0 else 3
            whole += 64 ** (lengths - len(tokens))
            assert len(text_of([*tokens, *[int(following[0])] * (lengths - 2)])) == 1
        else:
            begun += [[*tokens, int(token)] for token in following]
    assert whole == 17 * 2**16 - 2**11


def test_what_was_broken_already_binds_nothing() -> None:
    """A prefix may say anything; what comes after it begins anew."""
    broken = tokens_of("🎉")
    assert BYTES.next(reversed(broken[1:])) is None
    assert BYTES.next(reversed([*broken[:2], WORDS[0]])) is None
    assert BYTES.next([]) is None
    assert BYTES.next(reversed(broken[-1:] * 9)) is None
    assert BYTES.next([FIRST + 0xC0]) is None
    for lead, second in ((0xE0, 0x80), (0xED, 0xA0), (0xF4, 0x90), (0xF0, 0x80)):
        assert BYTES.next([FIRST + second, FIRST + lead]) is None


def test_a_vocabulary_that_lacks_the_bytes_to_go_on_is_not_held_to_them() -> None:
    assert ByteTokens({9: 0xE2}).next([9]) is None
    assert not NO_BYTES
    assert len(NO_BYTES.within) == 0


def rows_of(seed: int, history: list[int]) -> Floats:
    """Logits that hang on what was written, and love bytes."""
    generator = np.random.default_rng([seed, *history])
    logits = generator.normal(0, 3, WORDS.stop).astype(np.float32)
    logits[FIRST + 0x80 : FIRST + 256] += 3
    return logits


def run(seed: int, decoding: Decoding) -> Search:
    search = Search(decoding, MOST, BYTES)
    while search.live:
        logits = np.stack([rows_of(seed, node.tokens()) for node in search.live])
        search.advance(StepRows(logits, range(len(logits))))
    return search


OPTIONS: list[dict[str, Any]] = [
    {"beam_size": 4, "hypotheses": 4, "length_penalty": 0.6},
    {"no_repeat_ngram": 1},
    {"no_repeat_ngram": 2, "min_tokens": 12},
    {"repetition_penalty": 3.0},
    {"suppressed_ids": frozenset(tokens_of("🎉"))},
    {"sampling": Sampling((1, 2), top_k=20), "hypotheses": 3},
    {"prefix_ids": tuple(tokens_of("ß🎉"))},
    {"min_tokens": 30},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_only_whole_characters_are_written_whatever_the_options(options: dict[str, Any], seed: int) -> None:
    for ended in run(seed, Decoding(**options)).ended:
        tokens = ended.node.tokens()
        if ended.reason is FinishReason.END_OF_SENTENCE:
            text_of(tokens[:-1])
        else:  # it may have been cut within its last character
            assert any(_decodes(tokens[: len(tokens) - cut]) for cut in range(4))


def _decodes(tokens: list[int]) -> bool:
    try:
        text_of(tokens)
    except UnicodeDecodeError:
        return False
    return True


def run_plainly(seed: int) -> tuple[Search, int]:
    """As the engine drives it; and how often it chose again."""
    plain, mended = Search(Decoding(), MOST, BYTES), 0
    while plain.live:
        logits = rows_of(seed, plain.live[0].tokens())
        tokens, log_probabilities = choose_greedily(logits[None].copy())
        token, log_probability = int(tokens[0]), float(log_probabilities[0])
        if plain.is_out_of_place(token):
            token, log_probability = plain.choose_in_place(logits)
            mended += 1
            assert not plain.is_out_of_place(token)
        plain.take(token, log_probability, None)
    return plain, mended


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_plain_greedy_search_writes_what_a_beam_of_one_does(seed: int) -> None:
    plain, _ = run_plainly(seed)
    (found,) = run(seed, Decoding(length_penalty=1.0)).best()
    (own,) = plain.best()
    assert own.node.tokens() == found.node.tokens()
    assert [node.log_probability for node in own.node.path()] == pytest.approx(
        [node.log_probability for node in found.node.path()], abs=1e-4
    )


def test_greedy_search_would_break_characters_otherwise() -> None:
    assert all(run_plainly(seed)[1] > 0 for seed in range(5))


class ByteModel(CopyModel):
    """Its tokens from 4 to 8 are the bytes of 🎉 and one more that goes on: a broken source would be copied broken."""

    byte_tokens = ByteTokens(dict(zip(range(4, 9), [*"🎉".encode(), 0x80], strict=True)))


def test_in_a_batch_each_sentence_has_its_characters_whole_and_neighbours_are_as_they_were() -> None:
    engine = Engine(ByteModel(), EngineSettings(workers=1, rows_per_worker=8))  # type: ignore[arg-type]
    sources = [[4, 5, 6, 7], [4, 5, 30, 31, 32], [6, 30], [30, 31], [4, 5, 6]]
    requests = [
        SentenceRequest((*source, EOS_ID), 20, decoding=decoding)
        for source, decoding in itertools.product(sources, [Decoding(), Decoding(length_penalty=1.0)])
    ]
    futures = engine.submit(requests)
    wait(futures)
    engine.stop()
    found = [future.result().hypotheses[0] for future in futures]
    assert [plain.target_ids for plain in found[::2]] == [beam.target_ids for beam in found[1::2]]
    texts = [plain.target_ids for plain in found[::2]]
    assert texts[0] == (4, 5, 6, 7, EOS_ID)
    assert texts[3] == (30, 31, EOS_ID)
    for ids in texts:
        written = [ByteModel.byte_tokens.next(reversed(ids[:place])) for place in range(len(ids))]
        for token, following in zip(ids, written, strict=True):
            assert token not in ByteModel.byte_tokens.within if following is None else token in following
