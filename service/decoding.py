"""What a request asks of search: checked by the names of its own fields, then turned into the engine's options.

Knows a bundle's capabilities and tokenizers; no wire, no queue. Called by the translator.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, replace

import numpy as np

from service.bundle.manifest import Manifest
from service.bundle.repository import Bundle
from service.bundle.tokenizer import EOS_ID, UNK_ID, TokenizedText
from service.engine.decoding import MOST_ROWS, Decoding, Sampling
from service.errors import InvalidFieldError, UnsupportedError, shown

_MOST_PENALTY = 10.0
_LEAST_TEMPERATURE, _MOST_TEMPERATURE = 0.01, 100.0
_SEEDS = 2**63


@dataclass(frozen=True)
class SamplingRequest:
    """As ``heed.v1.SamplingOptions``."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass(frozen=True)
class DecodingRequest:
    """As ``heed.v1.DecodingOptions``; None and empty mean: not said. ``seed`` None: one is drawn, and told.

    ``beam_size`` and ``length_penalty`` are the model's own where they are not said (``of_model``).
    """

    max_output_tokens: int | None = None
    min_output_tokens: int = 0
    beam_size: int | None = None
    hypotheses: int = 1
    length_penalty: float | None = None
    coverage_penalty: float = 0.0
    sampling: SamplingRequest | None = None
    seed: int | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    suppressed_pieces: tuple[str, ...] = ()

    def of_model(self, manifest: Manifest, most_rows: int, searched: bool = True) -> DecodingRequest:
        """With the model's own beam and length penalty where none are said; ``most_rows`` of a batch.

        Samples, and what is not ``searched`` for, have no beam; greedy search has no use for a length penalty.
        """
        defaults, plain = manifest.decoding, self.sampling is not None or not searched
        beam, penalty = self.beam_size, self.length_penalty
        if beam is None:
            beam = 1 if plain else min(defaults.beam_size, MOST_ROWS, most_rows)
        if penalty is None:
            penalty = defaults.length_penalty if beam > 1 else 0.0
        return replace(self, beam_size=beam, length_penalty=penalty)

    def seeded(self) -> DecodingRequest:
        """With a seed, where something is to be drawn."""
        if self.sampling is None or self.seed is not None:
            return self
        return replace(self, seed=secrets.randbelow(_SEEDS))


#: Nothing is said.
PLAIN = DecodingRequest()
#: Greedy search and nothing else.
GREEDY = DecodingRequest(beam_size=1, length_penalty=0.0)


def check_decoding(request: DecodingRequest, manifest: Manifest, most_rows: int) -> None:
    """Raises InvalidFieldError, or UnsupportedError for what the model cannot do. ``request`` is ``of_model``,
    ``most_rows`` of a batch."""
    if request.beam_size is None or request.length_penalty is None:
        raise ValueError("a request is checked when it is of a model")
    limit, rows = manifest.limits.max_target_tokens, min(MOST_ROWS, most_rows)
    most = request.max_output_tokens if request.max_output_tokens is not None else limit
    _check_range("max_output_tokens", most, 1, limit, f"{manifest.name} allows")
    _check_range("min_output_tokens", request.min_output_tokens, 0, most)
    _check_range("beam_size", request.beam_size, 1, rows)
    most_hypotheses = rows if request.sampling is not None else request.beam_size
    _check_range("hypotheses", request.hypotheses, 1, most_hypotheses)
    _check_range("length_penalty", request.length_penalty, 0.0, _MOST_PENALTY)
    _check_range("coverage_penalty", request.coverage_penalty, 0.0, _MOST_PENALTY)
    _check_range("repetition_penalty", request.repetition_penalty, 0.1, _MOST_PENALTY)
    _check_range("no_repeat_ngram_size", request.no_repeat_ngram_size, 0, limit)
    if (sampling := request.sampling) is not None:
        _check_range("sampling.temperature", sampling.temperature, _LEAST_TEMPERATURE, _MOST_TEMPERATURE)
        _check_range("sampling.top_k", sampling.top_k, 0, 2**31 - 1)
        _check_range("sampling.top_p", sampling.top_p, 1e-6, 1.0)
        if request.beam_size != 1:
            raise InvalidFieldError("decoding.beam_size", f"{request.beam_size}; with sampling it is 1: choose one")
    elif request.seed is not None:
        raise InvalidFieldError("decoding.sampling", "absent, and there is a seed: greedy and beam search draw nothing")
    if request.coverage_penalty and manifest.alignment is None:
        raise UnsupportedError("NO_ATTENTION", f"{manifest.name} attends to nothing: leave decoding.coverage_penalty")
    if manifest.capabilities.generation == "one_shot":
        if request.max_output_tokens not in (None, limit) or replace(request, max_output_tokens=None) != GREEDY:
            raise UnsupportedError(
                "ONE_SHOT", f"{manifest.name} writes its {limit} tokens in one pass: leave decoding as it is"
            )
    elif not manifest.capabilities.beam and replace(request, max_output_tokens=None) != GREEDY:
        raise UnsupportedError(
            "GREEDY_ONLY",
            f"{manifest.name} reads its own guesses, not what search chose: leave decoding as it is",
        )


def _check_range(field: str, value: float, least: float, most: float, says: str = "allowed are") -> None:
    """The wire's fractions are float32: so are the bounds that they are held against."""
    if isinstance(value, int):
        allowed, found, bounds = least <= value <= most, f"{value}", f"{least:.0f} to {most:.0f}"
    else:
        allowed = math.isfinite(value) and bool(np.float32(least) <= np.float32(value) <= np.float32(most))
        found, bounds = f"{value:.9g}", f"{least:g} to {most:g}"
    if not allowed:
        raise InvalidFieldError(f"decoding.{field}", f"{found}; {says} {bounds}")


def suppressed_ids(request: DecodingRequest, bundle: Bundle) -> frozenset[int]:
    """Raises InvalidFieldError for a piece that the vocabulary has not, or that a translation needs to end."""
    found, most = set[int](), bundle.target_tokenizer.vocabulary_size
    if len(request.suppressed_pieces) > most:
        raise InvalidFieldError(
            "decoding.suppressed_pieces", f"{len(request.suppressed_pieces)}; the vocabulary has {most}"
        )
    for place, piece in enumerate(request.suppressed_pieces):
        identity = bundle.target_tokenizer.piece_id(piece)
        field = f"decoding.suppressed_pieces[{place}]"
        if identity is None:
            raise InvalidFieldError(field, f"{shown(piece)} is no piece of {bundle.label}'s target vocabulary")
        if identity == EOS_ID:
            raise InvalidFieldError(field, f"{piece!r} ends a translation: set decoding.min_output_tokens")
        found.add(identity)
    return frozenset(found)


def prefix_ids(prefix: TokenizedText, field: str, bundle: Bundle, most: int, whole: bool = False) -> tuple[int, ...]:
    """The ids of a translation's beginning, or of a ``whole`` one, `</s>` last.

    Raises InvalidFieldError where there is no room for it and what follows, and for what the model cannot write.
    """
    tokens, room = (prefix.tokens, most) if whole else (prefix.tokens[:-1], most - 1)
    if len(tokens) > room:
        raise InvalidFieldError(field, f"{len(tokens)} tokens; {room} are allowed", "TEXT_TOO_LONG", limit=str(room))
    for token in tokens:
        if token.id == UNK_ID:
            unknown = prefix.text[token.begin : token.end]
            raise InvalidFieldError(field, f"{shown(unknown)} is not in {bundle.label}'s target vocabulary")
    return tuple(token.id for token in tokens)


def to_decoding(
    request: DecodingRequest, suppressed: frozenset[int], prefix: tuple[int, ...], place: tuple[int, ...]
) -> Decoding:
    """The engine's options for one sentence; ``request`` is ``of_model``, ``place`` tells its draws from those of the
    request's other sentences."""
    if request.beam_size is None or request.length_penalty is None:
        raise ValueError("a request is decoded when it is of a model")
    sampling = None
    if request.sampling is not None and request.seed is not None:
        of = request.sampling
        sampling = Sampling((request.seed, *place), of.temperature, of.top_k, of.top_p)
    return Decoding(
        beam_size=request.beam_size,
        hypotheses=request.hypotheses,
        length_penalty=request.length_penalty,
        coverage_penalty=request.coverage_penalty,
        sampling=sampling,
        prefix_ids=prefix,
        min_tokens=request.min_output_tokens,
        repetition_penalty=request.repetition_penalty,
        no_repeat_ngram=request.no_repeat_ngram_size,
        suppressed_ids=suppressed,
    )
