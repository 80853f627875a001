"""A second try where the first translation has no text, lost what it was to keep, or goes round in circles.

What was wrong with a translation, what to ask for then, and which of the two answers is the better one. Knows bundles
and the engine's requests; no queue. Called by the translator and by ``training.evaluate``, so that what is measured is
what is served.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from service.bundle.repository import Bundle
from service.bundle.tokenizer import EOS_ID
from service.engine.hypothesis import Hypothesis
from service.engine.sentence import SentenceRequest, SentenceResult
from service.literals import Literal, added, literals, missing

_SURE_OF_TEXT = 4  # tokens, `</s>` counted: so long a translation has text
_BEAM = 8
_LONGEST_ROUND = 4  # tokens
_MOST_ROUNDS = 3  # "very, very, very" is none
_NO_REPEAT = 4  # tokens, where a translation went round in circles
_MOST_NATS = 15.0  # that a translation may be less likely for each fault less; those that read well cost 1 to 6


def kept_literals(bundle: Bundle, text: str) -> tuple[Literal, ...]:
    """What translations of ``text`` are to keep, by a model that copies it; of another nothing."""
    return literals(text, bundle.is_foreign) if bundle.manifest.keeps_literals else ()


@dataclass(frozen=True, order=True)
class Faults:
    """What is wrong with a translation; the least is the best."""

    empty: bool = False
    circles: bool = False
    left_out: int = 0
    added: int = 0

    @property
    def count(self) -> int:
        return self.empty + self.circles + self.left_out + self.added


@dataclass(frozen=True)
class Attempt:
    """One sentence of a bundle's model, and what was asked for it first. ``kept``: what its translation is to keep;
    ``most_rows``: how wide a beam the engine can hold."""

    bundle: Bundle
    text: str
    kept: tuple[Literal, ...]
    request: SentenceRequest
    most_rows: int = _BEAM

    def again(self, result: SentenceResult) -> SentenceRequest | None:
        """What to ask where the best hypothesis is at fault; None where it is not, or where something else was wished.

        That the empty translation is the likeliest is a fault of such models, which a wider beam makes worse (Stahlberg
        and Byrne 2019, https://arxiv.org/abs/1908.10090): a translation must go on for a token longer. What was left
        out must be written (``service.engine.phrases``), and no round of tokens twice. None too where the translation
        was given, drawn or begun, several were asked for, or the model can be asked for nothing but greedy search.
        """
        decoding, best = self.request.decoding, result.hypotheses[0]
        given = decoding.prefix_ids[-1:] == (EOS_ID,)
        if given or not self.bundle.manifest.capabilities.beam:
            return None
        faults = self.faults(best)
        if faults.empty:
            least = len(best.target_ids) + 1
            if least > min(_SURE_OF_TEXT, self.request.max_target_tokens):
                return None
            return replace(self.request, decoding=replace(decoding, min_tokens=least))
        if faults == Faults() or decoding.sampling is not None or decoding.hypotheses > 1 or decoding.prefix_ids:
            return None
        beam = max(min(_BEAM, self.most_rows), decoding.beam_size)
        wider = replace(decoding, beam_size=beam, hypotheses=beam)
        if faults.circles and not decoding.no_repeat_ngram:
            wider = replace(wider, no_repeat_ngram=_NO_REPEAT)
        if faults.left_out or faults.added:
            wider = replace(wider, phrases=self._phrases(), space_id=self.bundle.target_tokenizer.space_id)
        if faults.added:
            wider = replace(wider, suppressed_ids=wider.suppressed_ids | self._other_characters())
        return replace(self.request, decoding=wider)

    def better(self, first: SentenceResult, second: SentenceResult) -> SentenceResult:
        """With the hypothesis that has the least faults, of equals the likeliest by token.

        One that the model finds much less likely is none: then what is left out is better left out, and told. Anything
        is better than nothing, and than going round in circles.
        """
        if self.request.decoding.hypotheses > 1:
            return second
        before = first.hypotheses[0]
        faults, total = self.faults(before), float(before.log_probabilities.sum())
        found = [(faults, -float(before.log_probabilities.mean()), before)]
        for other in second.hypotheses:
            its = self.faults(other)
            least = total - _MOST_NATS * (faults.count - its.count)
            hopeless = faults.empty or (faults.circles and not its.circles)
            if its < faults and (hopeless or float(other.log_probabilities.sum()) >= least):
                found.append((its, -float(other.log_probabilities.mean()), other))
        return replace(second, hypotheses=(min(found, key=lambda one: one[:2])[2],))

    def faults(self, hypothesis: Hypothesis) -> Faults:
        written = self.bundle.decode(hypothesis.target_ids).text
        if not written.strip():
            return Faults(empty=True)
        if not self.bundle.manifest.keeps_literals:
            return Faults()
        most = max(_MOST_ROUNDS, _rounds(self.request.source_ids))
        return Faults(
            circles=_rounds(hypothesis.target_ids) > most,
            left_out=len(missing(self.kept, written)),
            added=added(self.text, written, self.bundle.is_foreign),
        )

    def _other_characters(self) -> frozenset[int]:
        """Bytes that begin characters such as the text has none of."""
        text = unicodedata.normalize("NFKC", self.text)
        there = {character.encode(errors="ignore")[:1] for character in text}
        values = self.bundle.target_tokenizer.byte_values().items()
        return frozenset(token for token, value in values if value > 0x7F and bytes([value]) not in there)

    def _phrases(self) -> tuple[tuple[int, ...], ...]:
        """What must be written, in tokens; nothing where there is no room for it."""
        tokenizer = self.bundle.target_tokenizer
        phrases = []
        for literal in self.kept:
            if literal.as_it_is:
                ids = tuple(token.id for token in tokenizer.encode(literal.text).tokens if not token.special)
                begins = literal.span.begin == 0 or self.text[literal.span.begin - 1].isspace()
                phrases.append(ids if begins or ids[0] != tokenizer.space_id else ids[1:])
        room = self.request.max_target_tokens - 1
        return tuple(phrases) if all(phrases) and sum(map(len, phrases)) <= room else ()


def _rounds(ids: Sequence[int]) -> int:
    """How often at most a run of a few tokens is written one after the other."""
    most = 1
    for length in range(1, _LONGEST_ROUND + 1):
        alike = 0
        for place in range(length, len(ids)):
            alike = alike + 1 if ids[place] == ids[place - length] else 0
            most = max(most, alike // length + 1)
    return most
