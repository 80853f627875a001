"""Choosing tokens: greedy search, beam search and sampling, under a request's options, for every family of models.

A hypothesis is scored by the sum of its tokens' log-probabilities s, normalised when it has ended (Wu et al. 2016,
https://arxiv.org/abs/1609.08144, section 7, with |y|^alpha for the length, `</s>` counted):

    s(y) / |y|^alpha + beta sum_i log min(sum_j a_ij, 1)

where a_ij is the alignment map's weight on source token i at the step that writes token j, and i runs over all but
`</s>`.

Beam search keeps the ``beam_size`` best by s. One that writes `</s>` among these has ended, and the beam is smaller by
one from then on, so that a beam of one is greedy search. It stops when all have ended, or when no hypothesis under way
can become better than those that will be returned: a sum of log-probabilities never rises, so that |y| tokens at most
give s / most^alpha at best.

Pure arrays and numbers: no model, no queue. Driven by the engine, one ``Search`` a sentence.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.bundle.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from service.engine.characters import NO_BYTES, ByteTokens, Ids
from service.engine.decoding import Decoding, Sampling
from service.engine.errors import RuntimeFailureError
from service.engine.hypothesis import FinishReason, Floats
from service.engine.phrases import Unwritten

#: Tokens that no translation holds, however likely the model finds them, unless a prefix says them.
NEVER_CHOSEN = [PAD_ID, BOS_ID, UNK_ID]
#: Places of a one-shot model that hold nothing are padding.
NEVER_CHOSEN_IN_ONE_PASS = [BOS_ID, UNK_ID]
_LEAST_COVERAGE = 1e-6  # of a source token that nothing looked at: its logarithm must be a number

_NO_NUMBER = "the model gave a logit that is no number"

Scores = npt.NDArray[np.float64]


def choose_in_one_pass(logits: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """The likeliest token of every place and its log-probability: (length, vocabulary) -> both (length,)."""
    return _choose(logits, NEVER_CHOSEN_IN_ONE_PASS)


def choose_greedily(logits: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """The likeliest token of each row and its log-probability: (rows, vocabulary) -> (rows,) int64, (rows,) float32.

    The log-softmax is over the whole vocabulary, so that it equals that of forced decoding; it is taken at the chosen
    token only. Padding, `<s>` and `<unk>` are never chosen.
    """
    return _choose(logits, NEVER_CHOSEN)


def _choose(logits: Floats, never: Sequence[int] | Ids) -> tuple[npt.NDArray[np.int64], Floats]:
    kept = logits[:, never]
    logits[:, never] = -np.inf
    tokens = logits.argmax(axis=-1)
    logits[:, never] = kept
    greatest = logits.max(axis=-1, keepdims=True)
    totals = np.log(np.exp(logits - greatest).sum(axis=-1))
    return tokens, logits[np.arange(len(tokens)), tokens] - greatest[:, 0] - totals


class Node:
    """A token of a hypothesis, and through its parents all the tokens before it.

    ``log_probability`` is the model's own; ``score`` is the sum of what search went by, which a repetition penalty
    makes another. ``attention``: the step's maps and the row in them that is this hypothesis's, where they are wanted.
    """

    __slots__ = ("attention", "coverage", "length", "log_probability", "parent", "score", "token", "unwritten")

    def __init__(
        self,
        parent: Node | None,
        token: int,
        log_probability: float,
        score: float,
        attention: tuple[dict[str, Floats], int] | None = None,
        coverage: Floats | None = None,
        unwritten: Unwritten | None = None,
    ) -> None:
        self.parent = parent
        self.token = token
        self.log_probability = log_probability
        self.score = score
        self.attention = attention
        self.coverage = coverage
        self.unwritten = unwritten
        self.length: int = 0 if parent is None else parent.length + 1

    def path(self) -> list[Node]:
        """From the first token to this one."""
        nodes: list[Node] = []
        node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def tokens(self) -> list[int]:
        return [node.token for node in self.path()]

    def backwards(self) -> Iterator[int]:
        """The tokens from this one to the first."""
        node = self
        while node.parent is not None:
            yield node.token
            node = node.parent


@dataclass(frozen=True)
class Ended:
    """A hypothesis that goes no further; ``score`` ranks it."""

    node: Node
    reason: FinishReason
    score: float


@dataclass(frozen=True)
class StepRows:
    """What one step gave for the hypotheses of a sentence, in their order.

    ``logits`` (hypotheses, vocabulary); ``rows`` are their rows in ``attention``, whose maps are the whole batch's;
    ``coverage`` (hypotheses, source_length) is the alignment's weight on each source token at this step, None where no
    penalty asks for it.
    """

    logits: Floats
    rows: Sequence[int]
    attention: dict[str, Floats] | None = None
    coverage: Floats | None = None


class Search:
    """The hypotheses of one sentence, from `<s>` to their ends."""

    def __init__(self, decoding: Decoding, most_tokens: int, byte_tokens: ByteTokens = NO_BYTES) -> None:
        """``most_tokens``: the length at which a hypothesis is ended, `</s>` counted. At least 1. ``byte_tokens``: only
        whole characters are written of them."""
        self._decoding = decoding
        self._byte_tokens = byte_tokens
        #: Greedy search and nothing else, which a whole batch does at once: it is driven by ``take``.
        self.is_plain = decoding.is_plain
        self._most = most_tokens
        self._generators: list[np.random.Generator] = []  # one for each draw, made when the first token is drawn
        self._never = np.array(sorted({*NEVER_CHOSEN, *decoding.suppressed_ids}), dtype=np.int64)
        #: Those under way; the engine decodes one row for each.
        self.live = [Node(None, BOS_ID, 0.0, 0.0, unwritten=_unwritten(decoding))]
        self.ended: list[Ended] = []

    @property
    def rows(self) -> int:
        """As many as may yet be under way at once."""
        return self._decoding.rows - len(self.ended) if self.live else 0

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        return max((node.length for node in (*self.live, *(end.node for end in self.ended))), default=0)

    def best(self) -> list[Ended]:
        """Those that are returned, best first; of equals the one that ended first."""
        ranked = sorted(self.ended, key=lambda end: -end.score)
        return ranked[: self._decoding.hypotheses]

    def forget(self) -> None:
        """Let go of every hypothesis, and so of the attention of every step."""
        self.live, self.ended = [], []

    def advance(self, step: StepRows) -> list[int]:
        """Take one step; returns, for each hypothesis that is under way after it, which one it goes on from.

        Raises RuntimeFailureError where the logits are no numbers.
        """
        own, judged = self._judge(step.logits)
        if self._decoding.phrases:
            chosen = self._shared_out(judged)
        elif self._decoding.sampling is None:
            chosen = self._best_of(judged)
        else:
            if not self._generators:
                self._generators = _generators(self._decoding.sampling, self._decoding.hypotheses)
            chosen = self._draw(judged, self._decoding.sampling)
        live, parents, generators = [], [], []
        for number, (place, token) in enumerate(chosen):
            parent = self.live[place]
            node = Node(
                parent,
                token,
                float(own[place, token]),
                parent.score + float(judged[place, token] if self._decoding.sampling is None else own[place, token]),
                None if step.attention is None else (step.attention, step.rows[place]),
                _covered(parent, step, place),
                None if parent.unwritten is None else parent.unwritten.after(token),
            )
            if not self._end(node):
                live.append(node)
                parents.append(place)
                generators += self._generators[number : number + 1]
        self.live, self._generators = live, generators
        if self._decoding.sampling is None and self._nothing_better_can_come():
            self.live, parents = [], []
        return parents

    def is_out_of_place(self, token: int) -> bool:
        """May plain greedy search not write it next, because it breaks a character?"""
        node, byte_tokens = self.live[0], self._byte_tokens
        if token not in byte_tokens and node.token not in byte_tokens:
            return False
        following = byte_tokens.next(node.backwards())
        return token in byte_tokens.within if following is None else token not in following

    def choose_in_place(self, logits: Floats) -> tuple[int, float]:
        """The likeliest token that plain greedy search may write next, and its log-probability: (vocabulary,)."""
        never = np.flatnonzero(~self._allowed((1, len(logits)), [[]])[0])
        tokens, log_probabilities = _choose(logits[None], never)
        return int(tokens[0]), float(log_probabilities[0])

    def take(self, token: int, log_probability: float, attention: tuple[dict[str, Floats], int] | None) -> None:
        """The same for plain greedy search, whose token was chosen for a whole batch at once."""
        if not math.isfinite(log_probability):
            raise RuntimeFailureError(_NO_NUMBER)
        parent = self.live[0]
        node = Node(parent, token, log_probability, parent.score + log_probability, attention)
        self.live = [] if self._end(node) else [node]

    def _end(self, node: Node) -> bool:
        """Does it end with this token? Then keep it."""
        if node.token != EOS_ID and node.length < self._most:
            return False
        reason = FinishReason.END_OF_SENTENCE if node.token == EOS_ID else FinishReason.LENGTH
        self.ended.append(Ended(node, reason, self._final_score(node)))
        return True

    # --- scores -------------------------------------------------------------------------------------------------------

    def _final_score(self, node: Node) -> float:
        score = node.score / math.pow(node.length, self._decoding.length_penalty)
        if node.coverage is not None:
            clipped = np.clip(node.coverage.astype(np.float64), _LEAST_COVERAGE, 1.0)
            score += self._decoding.coverage_penalty * float(np.log(clipped).sum())
        return score

    def _nothing_better_can_come(self) -> bool:
        """No hypothesis under way can end better than the last of those to be returned."""
        wanted = self._decoding.hypotheses
        if len(self.ended) < wanted or not self.live:
            return False
        last = sorted((end.score for end in self.ended), reverse=True)[wanted - 1]
        most_normalised = math.pow(self._most, self._decoding.length_penalty)
        return last >= max(node.score for node in self.live) / most_normalised

    def _judge(self, logits: Floats) -> tuple[Scores, Scores]:
        """The model's log-probabilities, and those that search goes by, -inf for what may not be written."""
        own = _log_softmax(logits.astype(np.float64))
        decoding = self._decoding
        looks_back = decoding.repetition_penalty != 1.0 or decoding.no_repeat_ngram > 0
        histories = [node.tokens() if looks_back else [] for node in self.live]
        judged = own if decoding.repetition_penalty == 1.0 else self._penalised(logits, histories)
        judged = np.where(self._allowed(judged.shape, histories), judged, -np.inf)
        return own, judged

    def _penalised(self, logits: Floats, histories: list[list[int]]) -> Scores:
        changed = logits.astype(np.float64)
        for row, history in zip(changed, histories, strict=True):
            written = np.unique(np.array(history, dtype=np.int64))
            values = row[written]
            penalty = self._decoding.repetition_penalty
            row[written] = np.where(values > 0, values / penalty, values * penalty)
        return _log_softmax(changed)

    def _allowed(self, shape: tuple[int, ...], histories: list[list[int]]) -> npt.NDArray[np.bool_]:
        decoding, length = self._decoding, self.live[0].length
        allowed = np.zeros(shape, dtype=bool)
        if length < len(decoding.prefix_ids):
            allowed[:, decoding.prefix_ids[length]] = True
            return allowed
        allowed[:] = True
        allowed[:, self._never] = False
        if decoding.no_repeat_ngram:
            for row, history in zip(allowed, histories, strict=True):
                row[_repeating(history, decoding.no_repeat_ngram)] = False
        # The rules above are of what is written; that it may end is decided by the least length alone.
        allowed[:, EOS_ID] = length + 1 >= decoding.min_tokens
        if self._byte_tokens:
            self._keep_characters_whole(allowed)
        if decoding.phrases:
            self._keep_phrases(allowed)
        allowed[~allowed.any(axis=1), EOS_ID] = True
        return allowed

    def _keep_characters_whole(self, allowed: npt.NDArray[np.bool_]) -> None:
        """What was begun is written to its end, whatever the other rules say: a character is one thing."""
        allowed[:, self._byte_tokens.within] = False
        for row, node in zip(allowed, self.live, strict=True):
            if (following := self._byte_tokens.next(node.backwards())) is not None:
                row[:] = False
                row[following] = True

    def _keep_phrases(self, allowed: npt.NDArray[np.bool_]) -> None:
        """Nothing ends before all are written, and a rule above forbids none of them."""
        for row, node in zip(allowed, self.live, strict=True):
            if node.unwritten is not None and node.unwritten.lacking:
                row[EOS_ID] = False
                if self._byte_tokens.next(node.backwards()) is None:
                    row[list(node.unwritten.next)] = True

    # --- choices ------------------------------------------------------------------------------------------------------

    def _best_of(self, judged: Scores) -> list[tuple[int, int]]:
        """The best continuations (hypothesis, token), as many as the beam is wide; of equals the first."""
        totals = (np.array([node.score for node in self.live])[:, None] + judged).ravel()
        chosen = _greatest(totals, min(self.rows, len(totals)))
        chosen = chosen[np.lexsort((chosen, -totals[chosen]))]
        width = judged.shape[1]
        return [divmod(int(place), width) for place in chosen if totals[place] > -np.inf]

    def _shared_out(self, judged: Scores) -> list[tuple[int, int]]:
        """The best continuations, those that begin or go on with a phrase and the best of each hypothesis, the beam
        shared among them by what they have yet to write: the best of each share in turn, until it is full.

        What is within a phrase is a share of its own, where tokens that were no choice do not count: at every step
        another hypothesis may begin the phrase, and would seem the better one for having none of it behind it. What
        breaks off is compared with what never began.
        """
        candidates = dict.fromkeys(self._best_of(judged))
        for place, node in enumerate(self.live):
            own = (int(judged[place].argmax()), *(node.unwritten.next if node.unwritten is not None else ()))
            candidates |= dict.fromkeys((place, token) for token in own if judged[place, token] > -np.inf)
        shares: dict[tuple[int, bool], list[tuple[float, int, int]]] = {}
        for place, token in candidates:
            node, score = self.live[place], self.live[place].score + float(judged[place, token])
            if node.unwritten is None:
                continue
            state = node.unwritten.after(token)
            if state.given:
                before = itertools.islice(node.path()[::-1], state.given - 1)
                score -= float(judged[place, token]) + sum(earlier.log_probability for earlier in before)
            shares.setdefault((len(state.lacking), not state.within), []).append((-score, place, token))
        ranked = [sorted(shares[share]) for share in sorted(shares)]
        turns = itertools.chain.from_iterable(itertools.zip_longest(*ranked))
        return [(place, token) for _, place, token in itertools.islice(filter(None, turns), self.rows)]

    def _draw(self, judged: Scores, sampling: Sampling) -> list[tuple[int, int]]:
        """One token for each hypothesis, by a draw of its own; the first step draws all from the one there is."""
        drawn = []
        for number, generator in enumerate(self._generators):
            place = number if len(self.live) > 1 or self.live[0].length else 0
            drawn.append((place, draw(judged[place], sampling, float(generator.random()))))
        return drawn


def draw(scores: Scores, sampling: Sampling, uniform: float) -> int:
    """The token that a uniform number from [0, 1) means: scores (vocabulary,) are log-probabilities, -inf for never."""
    kept = np.flatnonzero(scores > -np.inf)
    if 0 < sampling.top_k < len(kept):
        kept = kept[_greatest(scores[kept], sampling.top_k)]
    probabilities = np.exp(_log_softmax(scores[kept] / sampling.temperature))
    if sampling.top_p < 1.0:
        order = np.argsort(-probabilities, kind="stable")
        sums = np.cumsum(probabilities[order])
        order = order[: int(np.searchsorted(sums, sampling.top_p * sums[-1])) + 1]
        kept, probabilities = kept[order], probabilities[order]
    sums = np.cumsum(probabilities)
    return int(kept[min(len(kept) - 1, int(np.searchsorted(sums, uniform * sums[-1], side="right")))])


def _greatest(values: Scores, count: int) -> npt.NDArray[np.int64]:
    """The places of the greatest ``count`` values, in no order; of equals the first."""
    least = np.partition(values, -count)[-count]
    better, equal = np.flatnonzero(values > least), np.flatnonzero(values == least)
    return np.concatenate([better, equal[: count - len(better)]])


def _unwritten(decoding: Decoding) -> Unwritten | None:
    return Unwritten(decoding.phrases, decoding.space_id) if decoding.phrases else None


def _generators(sampling: Sampling, count: int) -> list[np.random.Generator]:
    """One for each draw, independent of the others and of how many there are."""
    return [np.random.Generator(np.random.Philox(np.random.SeedSequence([*sampling.seed, i]))) for i in range(count)]


def _repeating(history: list[int], size: int) -> list[int]:
    """The tokens that would write a run of ``size`` tokens a second time."""
    if len(history) < size:
        return []
    tail = history[len(history) - size + 1 :]
    return [
        history[begin + size - 1]
        for begin in range(len(history) - size + 1)
        if history[begin : begin + size - 1] == tail
    ]


def _covered(parent: Node, step: StepRows, place: int) -> Floats | None:
    if step.coverage is None:
        return None
    own: Floats = step.coverage[place]
    return own if parent.coverage is None else parent.coverage + own


def _log_softmax(logits: Scores) -> Scores:
    """Over the last axis. Raises RuntimeFailureError for what is no number."""
    shifted: Scores = logits - logits.max(axis=-1, keepdims=True)
    found: Scores = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    if not np.isfinite(found).all():
        raise RuntimeFailureError(_NO_NUMBER)
    return found
