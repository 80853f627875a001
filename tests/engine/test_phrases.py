"""What a hypothesis has yet to write, token by token; and search that must write it, against all that there is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.tokenizer import EOS_ID
from service.engine.decoding import Decoding, Sampling
from service.engine.hypothesis import FinishReason
from service.engine.phrases import Phrase, Unwritten
from tests.engine.test_search import EVERYTHING, MOST, SEEDS, WORDS, Tokens, Toy, judged, run, told

SPACE = 9
TOKENS = st.integers(4, 6)
PHRASES = st.lists(st.lists(TOKENS, min_size=1, max_size=3).map(tuple), max_size=3).map(tuple)


def after(state: Unwritten, *tokens: int) -> Unwritten:
    for token in tokens:
        state = state.after(token)
    return state


def holds(tokens: Tokens, phrases: tuple[Phrase, ...]) -> bool:
    """Is there a place for each of the phrases, none within another?"""
    if not phrases:
        return True
    first, *others = phrases
    return any(
        tokens[begin : begin + len(first)] == first
        and holds((*tokens[:begin], -1, *tokens[begin + len(first) :]), tuple(others))
        for begin in range(len(tokens))
    )


def test_a_phrase_is_begun_goes_on_and_is_done() -> None:
    state = Unwritten(((4, 5, 6), (7,)))
    assert (state.next, state.within, state.given) == ((4, 7), False, 0)
    state = after(state, 8, 4)
    assert (state.next, state.within, state.given) == ((5,), True, 0)
    state = after(state, 5)
    assert (state.next, state.within, state.given) == ((6,), True, 1)
    assert after(state, 8) == Unwritten(((4, 5, 6), (7,)))  # broken off, and not lost
    state = after(state, 6)
    assert (state.lacking, state.next, state.within) == (((7,),), (7,), False)
    assert after(state, 7) == Unwritten(())


def test_a_space_says_nothing_yet() -> None:
    state = after(Unwritten(((SPACE, 4, 5, 6),), SPACE), SPACE)
    assert (state.next, state.within, state.given) == ((4,), True, 0)
    assert after(state, 8) == Unwritten(((SPACE, 4, 5, 6),), SPACE)
    assert [after(state, *more).given for more in ((4,), (4, 5))] == [0, 1]
    assert after(state, SPACE, 4, 5, 6).lacking == ()


def test_of_phrases_that_begin_alike_the_longer_one_is_waited_for() -> None:
    short, long = (4, 5), (4, 5, 6, 7)
    state = after(Unwritten((short, long)), *short)
    assert (state.lacking, state.within, state.next) == ((long,), False, (6, 4))
    assert after(state, 6, 7) == Unwritten((short,))  # it was the longer one
    assert after(state, 6, 7, *short) == Unwritten(())
    assert after(state, 8) == Unwritten((long,))
    assert after(state, 6).given == 0
    assert after(state, 6, 8) == Unwritten((long,))
    assert after(state, *long) == Unwritten(())
    assert after(Unwritten((short, short)), *short) == Unwritten((short,))


def test_what_breaks_off_may_have_begun_later() -> None:
    assert after(Unwritten(((4, 4, 5),)), 4, 4, 4, 5) == Unwritten(())
    assert after(Unwritten(((4, 5, 4, 6),)), 4, 5, 4, 5, 4, 6) == Unwritten(())


@given(phrases=PHRASES, tokens=st.lists(TOKENS, max_size=14))
@settings(max_examples=1000, deadline=None)
def test_what_is_written_is_there(phrases: tuple[Phrase, ...], tokens: list[int]) -> None:
    """Of several phrases that overlap the first is taken, which may leave no place for another: then it says so."""
    state = after(Unwritten(phrases), *tokens)
    written = tuple(one for one in dict.fromkeys(phrases) for _ in range(phrases.count(one) - state.lacking.count(one)))
    assert holds(tuple(tokens), written)
    if len(phrases) == 1:
        assert holds(tuple(tokens), phrases) is (not state.lacking)


@given(phrases=PHRASES, other=st.integers(7, 9), data=st.data())
@settings(deadline=None)
def test_whatever_is_written_in_between_what_is_next_leads_to_the_end(
    phrases: tuple[Phrase, ...], other: int, data: st.DataObject
) -> None:
    state, tokens = Unwritten(phrases), list[int]()
    for token in data.draw(st.lists(TOKENS | st.just(other), max_size=6)):
        state, tokens = state.after(token), [*tokens, token]
    for _ in range(sum(map(len, phrases))):
        if not state.lacking:
            break
        state, tokens = state.after(state.next[0]), [*tokens, state.next[0]]
    assert not state.lacking
    assert holds(tuple(tokens), phrases)


# --- search ----------------------------------------------------------------------------------------------------------


def all_that_hold(
    toy: Toy, decoding: Decoding, tokens: Tokens = (), total: float = 0.0
) -> Iterator[tuple[Tokens, float]]:
    """Every hypothesis that holds the phrases and ends, by recursion, and its score."""
    for token, score in judged(toy, decoding, tokens).items():
        longer = (*tokens, token)
        if token == EOS_ID:
            if holds(tokens, decoding.phrases):
                yield longer, (total + score) / len(longer) ** decoding.length_penalty
        elif len(longer) < MOST:
            yield from all_that_hold(toy, decoding, longer, total + score)


SHORT = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=2).map(tuple), min_size=1, max_size=2).map(tuple)
#: Of which none can stand in another's place.
APART = st.sampled_from([((4,),), ((4, 5),), ((5, 5),), ((4, 4, 5),), ((4,), (5,)), ((4,), (4,)), ((4, 5), (4, 5))])


@given(seed=SEEDS, phrases=APART, alpha=st.floats(0, 1))
@settings(max_examples=300, deadline=None)
def test_a_beam_that_holds_everything_finds_the_best_that_has_the_phrases(
    seed: int, phrases: tuple[Phrase, ...], alpha: float
) -> None:
    toy = Toy(seed)
    decoding = Decoding(beam_size=EVERYTHING, hypotheses=EVERYTHING, phrases=phrases, length_penalty=alpha)
    wanted = sorted(all_that_hold(toy, decoding), key=lambda pair: -pair[1])
    found = [end for end in run(toy, decoding).best() if end.reason is FinishReason.END_OF_SENTENCE]
    assert [score for _, score in told(found)] == pytest.approx([score for _, score in wanted], abs=1e-9)
    assert {tokens for tokens, _ in told(found)} == {tokens for tokens, _ in wanted}


@given(seed=SEEDS, phrases=SHORT, beam=st.integers(1, 6))
@settings(max_examples=300, deadline=None)
def test_a_narrow_beam_ends_nothing_without_the_phrases_and_finds_them_a_place(
    seed: int, phrases: tuple[Phrase, ...], beam: int
) -> None:
    ended = run(Toy(seed), Decoding(beam_size=beam, hypotheses=beam, phrases=phrases), most=12).ended
    assert all(holds(tuple(end.node.tokens()), phrases) for end in ended if end.reason is FinishReason.END_OF_SENTENCE)
    assert any(holds(tuple(end.node.tokens()), phrases) for end in ended)


def test_a_long_phrase_is_written_to_its_end_though_each_of_its_tokens_is_unlikely() -> None:
    """At every step a hypothesis that just begins it looks better than one that is half through."""
    toy = Toy(1, vocabulary=12, spread=0.1)
    phrase = (6, 7, 8, 9, 10, 11)
    step = toy.step

    def unlikely(history: Tokens) -> tuple[np.ndarray, np.ndarray]:
        logits, weights = step(history)
        lowered = logits.copy()
        lowered[list(phrase[1:])] -= 12.0
        return lowered, weights

    toy.step = unlikely  # type: ignore[assignment]
    best = run(toy, Decoding(beam_size=4, hypotheses=1, phrases=(phrase,)), most=30).best()[0]
    assert best.reason is FinishReason.END_OF_SENTENCE
    assert holds(tuple(best.node.tokens()), (phrase,))


@given(seed=SEEDS, phrases=SHORT)
def test_log_probabilities_are_the_models_own(seed: int, phrases: tuple[Phrase, ...]) -> None:
    toy = Toy(seed)
    for ended in run(toy, Decoding(beam_size=4, hypotheses=4, phrases=phrases)).best():
        tokens = ended.node.tokens()
        wanted = [toy.own(tuple(tokens[:place]))[token] for place, token in enumerate(tokens)]
        assert [node.log_probability for node in ended.node.path()] == pytest.approx(wanted, abs=1e-12)


def test_phrases_are_not_drawn_and_none_is_empty() -> None:
    for wrong in ({"phrases": ((),)}, {"phrases": ((4,),), "sampling": Sampling((1,))}):
        with pytest.raises(ValueError, match="phrases"):
            Decoding(**wrong)  # type: ignore[arg-type]
