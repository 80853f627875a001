"""A translation read back: how likely the model of the other direction finds the text, given the translation.

A small model that leaves a word out, or says another twice in its place, finds that likely: "Next week we're flying to
Lisbon to Lisbon." is its best hypothesis of a sentence with Ryanair. The text is very unlikely given that translation,
and much likelier given another of the same beam. So a beam is chosen from by both directions (the noisy channel: Li and
Jurafsky 2016, https://arxiv.org/abs/1601.00372; Yee, Dauphin and Auli 2019, https://arxiv.org/abs/1908.05731). Knows
bundles and the engine's requests; no queue. Called by ``service.second_tries``; ``service.recovery`` chooses.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.bundle.reading import plain_marks, truecased
from service.bundle.repository import Bundle
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.engine.sentence import SentenceRequest, SentenceResult


@dataclass(frozen=True)
class Reader:
    """The model of the other direction, and the engine that runs it."""

    bundle: Bundle
    engine: Engine

    def request(self, text: str, translation: str, asked: SentenceRequest) -> SentenceRequest | None:
        """What to ask to read ``translation`` back; None where either is longer than the reader can hold.

        ``text``: as it was sent; ``asked``: what was asked for its translation, whose priority this has.
        """
        manifest, tokenizer = self.bundle.manifest, self.bundle.target_tokenizer
        written = plain_marks(truecased(text, tokenizer)) if manifest.reads_plainly else text
        source, target = tuple(self.bundle.encode_ids(translation)), tuple(tokenizer.encode_ids(written))
        limits = manifest.limits
        if len(source) > limits.max_source_tokens or len(target) > limits.max_target_tokens:
            return None
        given = Decoding(prefix_ids=target)
        return SentenceRequest(source, len(target), decoding=given, priority=asked.priority)


@dataclass(frozen=True)
class Reading:
    """How likely a text is, given its translation: the sum of ``tokens`` log-probabilities, in nats."""

    log_probability: float
    tokens: int

    @classmethod
    def of(cls, result: SentenceResult) -> Reading:
        (given,) = result.hypotheses
        return cls(float(given.log_probabilities.sum()), len(given.target_ids))

    @property
    def mean(self) -> float:
        return self.log_probability / self.tokens


def is_reader_of(reader: Bundle, bundle: Bundle) -> bool:
    """Does it translate what the other writes, one language to one, and can it judge a translation?"""
    there, here = reader.manifest, bundle.manifest
    both = len(here.source_languages) == len(here.target_languages) == 1
    told = bool(there.target_language_pieces)  # as a model of several languages is, which each text
    reverse = (there.source_languages, there.target_languages) == (here.target_languages, here.source_languages)
    return both and reverse and not told and there.capabilities.prefix
