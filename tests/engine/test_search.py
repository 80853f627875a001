"""Search against a second writing of its definition, and against all the hypotheses there are."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.bundle.tokenizer import EOS_ID, UNK_ID
from service.engine.decoding import MOST_ROWS, Decoding, Sampling
from service.engine.errors import RuntimeFailureError
from service.engine.hypothesis import FinishReason, Floats
from service.engine.search import NEVER_CHOSEN, Ended, Search, StepRows, choose_greedily, draw

VOCABULARY, WORDS, MOST = 6, (4, 5), 5
#: All that two words can make in five tokens fits a beam: 15 that end early, 16 times 3 that have four words.
EVERYTHING = 63
SOURCE = 3
Tokens = tuple[int, ...]

assert sum(2**length for length in range(MOST - 1)) + 2 ** (MOST - 1) * 3 == EVERYTHING <= MOST_ROWS


class Toy:
    """Logits and attention that hang on all that was written, at random but for the seed."""

    def __init__(self, seed: int, vocabulary: int = VOCABULARY, spread: float = 2.0) -> None:
        self._seed, self._vocabulary, self._spread = seed, vocabulary, spread
        self.step = functools.cache(self._step)

    def _step(self, history: Tokens) -> tuple[Floats, Floats]:
        generator = np.random.default_rng([self._seed, *history])
        logits = generator.normal(0, self._spread, self._vocabulary).astype(np.float32)
        return logits, generator.dirichlet(np.full(SOURCE, 0.3)).astype(np.float32)

    def own(self, history: Tokens) -> np.ndarray:
        return log_softmax(self.step(history)[0])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    return wide - wide.max() - math.log(np.exp(wide - wide.max()).sum())  # type: ignore[no-any-return]


def run(toy: Toy, decoding: Decoding, most: int = MOST) -> Search:
    """As the engine drives it."""
    search = Search(decoding, most)
    while search.live:
        assert len(search.live) <= search.rows <= decoding.rows
        steps = [toy.step(tuple(node.tokens())) for node in search.live]
        before = [node.tokens() for node in search.live]
        logits, weights = (np.stack(rows) for rows in zip(*steps, strict=True))
        coverage = weights if decoding.coverage_penalty else None
        parents = search.advance(StepRows(logits, range(len(before)), {"cross": weights}, coverage))
        assert [node.tokens()[:-1] for node in search.live] == [before[parent] for parent in parents]
    return search


# --- the definition, written a second time ---------------------------------------------------------------------------


def judged(toy: Toy, decoding: Decoding, history: Tokens) -> dict[int, float]:
    """What may be written after ``history``, and what search goes by for each."""
    logits = toy.step(history)[0].astype(np.float64)
    for token in set(history):
        logits[token] *= decoding.repetition_penalty if logits[token] < 0 else 1 / decoding.repetition_penalty
    scores = log_softmax(logits)
    if len(history) < len(decoding.prefix_ids):
        token = decoding.prefix_ids[len(history)]
        return {token: float(scores[token])}
    allowed = set()
    for token in range(VOCABULARY):
        runs = list(zip(*[(*history, token)[begin:] for begin in range(decoding.no_repeat_ngram)], strict=False))
        again = decoding.no_repeat_ngram and runs and runs[-1] in runs[:-1]
        if token == EOS_ID:
            if len(history) + 1 >= decoding.min_tokens:
                allowed.add(token)
        elif token not in NEVER_CHOSEN and token not in decoding.suppressed_ids and not again:
            allowed.add(token)
    return {token: float(scores[token]) for token in sorted(allowed or {EOS_ID})}


def final_score(toy: Toy, decoding: Decoding, tokens: Tokens, total: float) -> float:
    covered = sum(toy.step(tokens[:place])[1] for place in range(len(tokens)))
    penalty = sum(math.log(min(max(float(share), 1e-6), 1.0)) for share in np.asarray(covered, dtype=np.float64))
    return total / len(tokens) ** decoding.length_penalty + decoding.coverage_penalty * penalty


def by_definition(toy: Toy, decoding: Decoding) -> list[tuple[Tokens, float]]:
    """Beam search without an early stop, on lists."""
    live: list[tuple[Tokens, float]] = [((), 0.0)]
    ended: list[tuple[Tokens, float]] = []
    while live:
        candidates = [
            ((*tokens, token), total + score)
            for tokens, total in live
            for token, score in judged(toy, decoding, tokens).items()
        ]
        kept = sorted(candidates, key=lambda pair: -pair[1])[: decoding.beam_size - len(ended)]
        live = [pair for pair in kept if pair[0][-1] != EOS_ID and len(pair[0]) < MOST]
        ended += [pair for pair in kept if pair not in live]
    scored = [(tokens, final_score(toy, decoding, tokens, total)) for tokens, total in ended]
    return sorted(scored, key=lambda pair: -pair[1])[: decoding.hypotheses]


def all_hypotheses(
    toy: Toy, decoding: Decoding, tokens: Tokens = (), total: float = 0.0
) -> Iterator[tuple[Tokens, float]]:
    """Every one there is, by recursion."""
    for token, score in judged(toy, decoding, tokens).items():
        longer = (*tokens, token)
        if token == EOS_ID or len(longer) == MOST:
            yield longer, final_score(toy, decoding, longer, total + score)
        else:
            yield from all_hypotheses(toy, decoding, longer, total + score)


def told(ended: Sequence[Ended]) -> list[tuple[Tokens, float]]:
    return [(tuple(end.node.tokens()), end.score) for end in ended]


def assert_same(found: list[tuple[Tokens, float]], wanted: list[tuple[Tokens, float]]) -> None:
    """Scores to 1e-9, tokens where no other score is as near."""
    assert [score for _, score in found] == pytest.approx([score for _, score in wanted], abs=1e-9)
    for place, (tokens, score) in enumerate(found):
        near = [other for other, _ in wanted if abs(_ - score) < 1e-9]
        assert tokens in near, place


# --- beam search -----------------------------------------------------------------------------------------------------

OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "length_penalty": st.floats(0, 2),
        "coverage_penalty": st.floats(0, 1),
        "min_tokens": st.integers(0, MOST),
        "repetition_penalty": st.floats(0.5, 3),
        "no_repeat_ngram": st.integers(0, 3),
        "suppressed_ids": st.frozensets(st.sampled_from(WORDS)),
        "prefix_ids": st.lists(st.sampled_from((*WORDS, UNK_ID)), max_size=MOST - 1).map(tuple),
    },
)
SEEDS = st.integers(0, 2**32)


@given(seed=SEEDS, options=OPTIONS, hypotheses=st.integers(1, EVERYTHING))
@settings(max_examples=400, deadline=None)
def test_a_beam_that_holds_everything_finds_the_best_of_all(
    seed: int, options: dict[str, Any], hypotheses: int
) -> None:
    toy, decoding = Toy(seed), Decoding(beam_size=EVERYTHING, hypotheses=hypotheses, **options)
    everything = sorted(all_hypotheses(toy, decoding), key=lambda pair: -pair[1])
    assert_same(told(run(toy, decoding).best()), everything[:hypotheses])


@given(seed=SEEDS, options=OPTIONS, beam=st.integers(1, 8), share=st.floats(0, 1))
@settings(max_examples=600, deadline=None)
def test_a_narrow_beam_is_its_definition_and_stops_early_without_a_loss(
    seed: int, options: dict[str, Any], beam: int, share: float
) -> None:
    toy, decoding = Toy(seed), Decoding(beam_size=beam, hypotheses=1 + round(share * (beam - 1)), **options)
    assert_same(told(run(toy, decoding).best()), by_definition(toy, decoding))


def test_some_searches_do_stop_early() -> None:
    """Otherwise the test above says nothing of it."""
    stopped = 0
    for seed in range(50):
        search = run(Toy(seed), Decoding(beam_size=4, length_penalty=0.5))
        stopped += len(search.ended) < 4
    assert stopped > 10


@given(seed=SEEDS, options=OPTIONS, beam=st.integers(1, 16))
@settings(max_examples=200, deadline=None)
def test_the_hypotheses_are_sorted_distinct_and_as_many_as_were_asked_for(
    seed: int, options: dict[str, Any], beam: int
) -> None:
    toy, decoding = Toy(seed), Decoding(beam_size=beam, hypotheses=beam, **options)
    found = told(run(toy, decoding).best())
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert len({tokens for tokens, _ in found}) == len(found)
    assert len(found) == min(beam, len(by_definition(toy, decoding)))


@given(seed=SEEDS, alpha=st.floats(0, 2))
@settings(max_examples=200, deadline=None)
def test_a_beam_of_one_is_greedy_search(seed: int, alpha: float) -> None:
    toy, tokens = Toy(seed), list[int]()
    plain = Search(Decoding(), MOST)
    while plain.live:
        token, log_probability = choose_greedily(toy.step(tuple(tokens))[0][None].copy())
        plain.take(int(token[0]), float(log_probability[0]), None)
        tokens.append(int(token[0]))
    (found,) = run(toy, Decoding(length_penalty=alpha, beam_size=1)).best()
    assert found.node.tokens() == tokens == plain.best()[0].node.tokens()
    assert plain.best()[0].reason is found.reason
    own = sum(toy.own(tuple(tokens[:place]))[token] for place, token in enumerate(tokens))
    assert plain.best()[0].score == pytest.approx(own, abs=1e-5)


@given(seed=SEEDS, options=OPTIONS, beam=st.integers(1, 8))
@settings(max_examples=200, deadline=None)
def test_log_probabilities_are_the_models_own_whatever_the_options(
    seed: int, options: dict[str, Any], beam: int
) -> None:
    toy, decoding = Toy(seed), Decoding(beam_size=beam, hypotheses=beam, **options)
    for ended in run(toy, decoding).best():
        path, tokens = ended.node.path(), ended.node.tokens()
        wanted = [toy.own(tuple(tokens[:place]))[token] for place, token in enumerate(tokens)]
        assert [node.log_probability for node in path] == pytest.approx(wanted, abs=1e-12)


def test_each_token_keeps_the_attention_of_its_own_path() -> None:
    toy = Toy(3)
    for ended in run(toy, Decoding(beam_size=6, hypotheses=6)).best():
        tokens = ended.node.tokens()
        for place, node in enumerate(ended.node.path()):
            assert node.attention is not None
            maps, row = node.attention
            np.testing.assert_array_equal(maps["cross"][row], toy.step(tuple(tokens[:place]))[1])


def test_the_reason_tells_an_end_from_the_limit() -> None:
    reasons = {
        end.node.token == EOS_ID: end.reason
        for seed in range(20)
        for end in run(Toy(seed), Decoding(beam_size=8)).ended
    }
    assert reasons == {True: FinishReason.END_OF_SENTENCE, False: FinishReason.LENGTH}


@given(seed=SEEDS, words=st.lists(st.sampled_from((*WORDS, UNK_ID)), max_size=MOST - 1))
def test_a_prefix_that_ends_is_forced_decoding(seed: int, words: list[int]) -> None:
    toy, target = Toy(seed), (*words, EOS_ID)
    (found,) = run(toy, Decoding(prefix_ids=target)).best()
    assert tuple(found.node.tokens()) == target
    wanted = [toy.own(target[:place])[token] for place, token in enumerate(target)]
    assert [node.log_probability for node in found.node.path()] == pytest.approx(wanted, abs=1e-12)


def test_what_is_no_number_is_told() -> None:
    for decoding in (Decoding(beam_size=2), Decoding(sampling=Sampling((1,)))):
        for bad in (np.nan, np.inf):
            logits = np.zeros((1, VOCABULARY), np.float32)
            logits[0, 4] = bad
            with pytest.raises(RuntimeFailureError, match="no number"), np.errstate(invalid="ignore"):
                Search(decoding, MOST).advance(StepRows(logits, [0]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"beam_size": 0},
        {"beam_size": MOST_ROWS + 1},
        {"hypotheses": 2},
        {"hypotheses": 0},
        {"length_penalty": -0.1},
        {"coverage_penalty": float("nan")},
        {"repetition_penalty": 0.0},
        {"sampling": Sampling((1,)), "beam_size": 2},
    ],
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"beam|penalties|sampling"):
        Decoding(**wrong)


# --- sampling --------------------------------------------------------------------------------------------------------


def samples(toy: Toy, seed: int, count: int, **options: Any) -> list[list[int]]:
    decoding = Decoding(sampling=Sampling((seed,), **options), hypotheses=count)
    return [end.node.tokens() for end in sorted(run(toy, decoding).ended, key=lambda end: end.node.length)]


@given(seed=SEEDS, options=OPTIONS, count=st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_a_seed_reproduces(seed: int, options: dict[str, Any], count: int) -> None:
    decoding = Decoding(sampling=Sampling((seed, 1), temperature=1.5), hypotheses=count, **options)
    one, other = (told(run(Toy(seed), decoding).best()) for _ in range(2))
    assert one == other
    assert len(one) == count


def test_another_seed_gives_others() -> None:
    toy = Toy(5, spread=0.5)
    assert len({str(samples(toy, seed, 4)) for seed in range(10)}) > 5


def test_a_draw_does_not_hang_on_how_many_there_are() -> None:
    toy = Toy(5, spread=0.5)
    few, many = (samples(toy, 7, count) for count in (2, 8))
    assert all(found in many for found in few)


def test_samples_are_drawn_by_the_models_probabilities() -> None:
    toy, counts = Toy(11, spread=1.0), dict[Tokens, int]()
    rounds, each = 300, 32
    for seed in range(rounds):
        for tokens in samples(toy, seed, each):
            counts[tuple(tokens)] = counts.get(tuple(tokens), 0) + 1
    everything = dict(all_hypotheses(toy, Decoding()))
    total = sum(math.exp(score) for score in everything.values())
    assert total < 1  # padding, `<s>` and `<unk>` have a share that is never drawn
    for first in (EOS_ID, *WORDS):
        share = sum(count for tokens, count in counts.items() if tokens[0] == first) / (rounds * each)
        own = np.exp(toy.own(()))
        wanted = own[first] / own[[EOS_ID, *WORDS]].sum()
        assert share == pytest.approx(wanted, abs=4 * math.sqrt(wanted * (1 - wanted) / (rounds * each)))


SCORES = hnp.arrays(np.float64, 9, elements={"min_value": -8, "max_value": 0})


@given(
    scores=SCORES, k=st.integers(0, 9), p=st.floats(0.01, 1), temperature=st.floats(0.1, 3), uniform=st.floats(0, 0.999)
)
def test_a_draw_is_from_the_likeliest(scores: np.ndarray, k: int, p: float, temperature: float, uniform: float) -> None:
    scores = np.where(np.arange(9) == 3, -np.inf, scores)
    token = draw(scores, Sampling((1,), temperature, k, p), uniform)
    shares = np.exp(scores / temperature)
    better = shares[shares > shares[token] * (1 + 1e-12)]  # what differs by rounding alone is as likely
    kept = np.sort(shares)[::-1][: k or None]
    assert scores[token] > -np.inf
    assert not k or len(better) < k
    assert better.sum() < p * kept.sum() + 1e-9


@given(scores=SCORES)
def test_the_whole_range_of_draws_covers_every_token_by_its_share(scores: np.ndarray) -> None:
    uniforms = (np.arange(2000) + 0.5) / 2000
    drawn = np.bincount([draw(scores, Sampling((1,)), float(uniform)) for uniform in uniforms], minlength=9) / 2000
    np.testing.assert_allclose(drawn, np.exp(scores) / np.exp(scores).sum(), atol=2 / 2000)


def test_a_temperature_near_nothing_is_greedy() -> None:
    toy = Toy(9)
    (greedy,) = run(toy, Decoding()).best()
    assert samples(toy, 1, 3, temperature=1e-3) == [greedy.node.tokens()] * 3
    assert samples(toy, 1, 3, top_k=1) == [greedy.node.tokens()] * 3


# --- greedy search of a whole batch ----------------------------------------------------------------------------------


@given(hnp.arrays(np.float32, (3, 7), elements={"min_value": -50, "max_value": 50}))
def test_it_is_the_argmax_and_its_log_softmax(logits: np.ndarray) -> None:
    before = logits.copy()
    tokens, log_probabilities = choose_greedily(logits)
    np.testing.assert_array_equal(logits, before)
    allowed = [token for token in range(7) if token not in NEVER_CHOSEN]
    assert (tokens == np.array(allowed)[logits[:, allowed].argmax(-1)]).all()
    reference = np.stack([log_softmax(row) for row in logits])
    np.testing.assert_allclose(log_probabilities, reference[np.arange(3), tokens], atol=1e-5)


def test_great_logits_do_not_overflow() -> None:
    tokens, log_probabilities = choose_greedily(np.array([[0.0, -1e4, -1e4, 0.0, 1e4]], np.float32))
    assert tokens[0] == 4
    assert log_probabilities[0] == 0.0


def test_padding_start_and_unknown_are_never_chosen_and_keep_their_share() -> None:
    logits = np.array([[9.0, 9.0, 1.0, 9.0, 0.0]], np.float32)
    tokens, log_probabilities = choose_greedily(logits)
    assert tokens[0] == EOS_ID
    assert log_probabilities[0] == pytest.approx(1 - np.log(3 * np.exp(9) + np.exp(1) + 1), abs=1e-5)
