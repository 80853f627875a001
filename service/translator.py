"""Text in, translation and attention out: validate, tokenise, submit, detokenise, view.

Knows text, models and attention; nothing of gRPC or protobuf. Called by ``rpc``, on the event loop.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.attention.measures import Measures, measure
from service.attention.views import Link, aligned, links, word_matrix
from service.attention.words import Word, words_of
from service.bundle.manifest import AlignmentEntry, AttentionMapEntry, AttentionVariant, Manifest
from service.bundle.tokenizer import EOS_ID, Token, TokenizedText
from service.engine.errors import DeadlineError, EngineError, QueueFullError, StoppedError
from service.engine.sentence import FinishReason, Floats, Hypothesis, SentenceRequest, SentenceResult
from service.errors import (
    DeadlineExceededError,
    HeedError,
    InternalError,
    InvalidFieldError,
    OverloadedError,
    UnavailableError,
    UnsupportedError,
)
from service.metrics import Metrics
from service.registry import ModelRegistry, ServedModel

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 0.2
_TURN_SECONDS = 0.001


class View(enum.Enum):
    """What of the attention to return. Links and measures come with each."""

    ALIGNMENT = "alignment"
    WORD = "word"
    TOKEN = "token"  # noqa: S105 - a token of text
    FULL = "full"


@dataclass(frozen=True)
class AttentionRequest:
    """Empty ``maps``, ``layers`` and ``heads`` take the alignment, or, for FULL, everything.

    ``bytes_per_weight`` is what the reply will spend, ``max_bytes`` what all of its matrices may.
    """

    view: View
    maps: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    mean_of_heads: bool = False
    bytes_per_weight: int = 4
    max_bytes: int = 32 * 1024 * 1024


@dataclass(frozen=True)
class MapChoice:
    """One map whose matrix is returned: these heads of it, or, for ``alignment``, the alignment (shifted, one head)."""

    entry: AttentionMapEntry
    heads: tuple[int, ...]
    alignment: bool = False


@dataclass(frozen=True)
class TranslateRequest:
    """``deadline`` is a time of ``time.monotonic``; empty strings and None mean: not said."""

    texts: tuple[str, ...]
    model: str = ""
    version: int | None = None
    source_language: str = ""
    target_language: str = ""
    contexts: int = 0
    max_output_tokens: int | None = None
    attention: AttentionRequest | None = None
    deadline: float | None = None


@dataclass(frozen=True)
class MatrixView:
    """``weights`` (heads, rows, columns): rows of the target, columns of the source, in tokens or words."""

    map: AttentionMapEntry
    heads: tuple[int, ...]
    of_words: bool
    weights: Floats


@dataclass(frozen=True)
class AttentionView:
    """What the reply says of a hypothesis's attention."""

    links: tuple[Link, ...]
    alignment: AlignmentEntry
    matrices: tuple[MatrixView, ...]
    measures: Measures


@dataclass(frozen=True)
class TranslatedHypothesis:
    """``tokens`` end in `</s>` unless the length limit came first; ``log_probabilities`` has one for each."""

    text: str
    tokens: tuple[Token, ...]
    log_probabilities: Floats
    finish_reason: FinishReason
    words: tuple[Word, ...]
    attention: AttentionView | None


@dataclass(frozen=True)
class Translated:
    """One text's outcome. ``source_words`` is empty without attention."""

    source: TokenizedText
    source_words: tuple[Word, ...]
    hypotheses: tuple[TranslatedHypothesis, ...]


@dataclass(frozen=True)
class TranslateResult:
    """One outcome for each text, in order: a translation, or why there is none."""

    model: str
    version: int
    outcomes: tuple[Translated | HeedError, ...]


@dataclass(frozen=True)
class TextLimits:
    """What a client may send in one call, whatever the model."""

    max_contents: int = 1024
    max_characters: int = 20_000


class Translator:
    """One for a server. ``translate`` may be called concurrently on one event loop."""

    def __init__(self, registry: ModelRegistry, metrics: Metrics, limits: TextLimits | None = None) -> None:
        self._registry = registry
        self._metrics = metrics
        self._limits = limits or TextLimits()
        self._draining = False

    def drain(self) -> None:
        """Refuse new requests from now on; those under way are finished."""
        self._draining = True

    async def translate(self, request: TranslateRequest) -> TranslateResult:
        """Translate every text. Raises HeedError for what concerns the whole request; CancelledError stops the work."""
        if self._draining:
            raise UnavailableError("DRAINING", "the server is shutting down", retry_seconds=1.0)
        model = self._registry.resolve(request.model, request.version, request.source_language, request.target_language)
        self._check(request, model)
        maps = select_maps(model.bundle.manifest, model.engine.attention_maps, request.attention)
        self._refuse_if_full(request, model)
        outcomes: list[Translated | HeedError | TokenizedText] = await self._tokenize(request, model)
        sources = [outcome for outcome in outcomes if isinstance(outcome, TokenizedText)]
        answers = await self._run(request, model, maps, sources)
        _check_size(request.attention, maps, sources, answers)
        results = iter(answers)
        turn = _Turn()
        for place, outcome in enumerate(outcomes):
            if isinstance(outcome, TokenizedText):
                result = next(results)
                outcomes[place] = (
                    result if isinstance(result, HeedError) else self._present(request, model, maps, outcome, result)
                )
                await turn.over()
        finished = tuple(outcome for outcome in outcomes if not isinstance(outcome, TokenizedText))
        for outcome in finished:
            if isinstance(outcome, HeedError):
                self._metrics.failures.labels(outcome.reason).inc()
        return TranslateResult(model.name, model.version, finished)

    def _check(self, request: TranslateRequest, model: ServedModel) -> None:
        count = len(request.texts)
        if not 1 <= count <= self._limits.max_contents:
            raise InvalidFieldError("contents", f"{count} texts; 1 to {self._limits.max_contents} are allowed")
        if request.contexts and not model.bundle.manifest.capabilities.document_context:
            raise UnsupportedError(
                "NO_DOCUMENT_CONTEXT", f"{model.name} translates sentences by themselves: leave contexts empty"
            )
        if request.contexts not in (0, count):
            raise InvalidFieldError("contexts", f"{request.contexts} contexts for {count} texts; send none or as many")
        limit = model.bundle.manifest.limits.max_target_tokens
        asked = request.max_output_tokens
        if asked is not None and not 1 <= asked <= limit:
            raise InvalidFieldError("decoding.max_output_tokens", f"{asked}; {model.name} allows 1 to {limit}")

    def _refuse_if_full(self, request: TranslateRequest, model: ServedModel) -> None:
        """A full queue is answered before any work is done for the answer. A text has at least two source tokens."""
        load = model.engine.load()
        wanted = len(request.texts) * (2 + _output_limit(request, model))
        if load.held_tokens and load.held_tokens + wanted > load.limit_tokens:
            raise self._overloaded(QueueFullError(wanted, load.held_tokens, load.limit_tokens))

    async def _tokenize(
        self, request: TranslateRequest, model: ServedModel
    ) -> list[Translated | HeedError | TokenizedText]:
        outcomes: list[Translated | HeedError | TokenizedText] = []
        seconds = self._metrics.phase_seconds.labels("tokenize")
        turn = _Turn()
        for place, text in enumerate(request.texts):
            with seconds.time():
                outcomes.append(self._tokenize_one(f"contents[{place}]", text, model))
            await turn.over()
        return outcomes

    def _tokenize_one(self, field: str, text: str, model: ServedModel) -> TokenizedText | InvalidFieldError:
        """A wrong text is an outcome of its own, not an end of the request."""
        if not text or text.isspace():
            return InvalidFieldError(field, "empty", "EMPTY_TEXT")
        limit = self._limits.max_characters
        if len(text) > limit:
            return InvalidFieldError(
                field, f"{len(text)} characters; {limit} are allowed", "TEXT_TOO_LONG", limit=str(limit)
            )
        tokens = len(model.bundle.source_tokenizer.encode_ids(text))  # offsets cost eighty times as much: later
        limit = model.bundle.manifest.limits.max_source_tokens
        if tokens > limit:
            problem = f"{tokens} tokens; {model.name} allows {limit}"
            return InvalidFieldError(field, problem, "TEXT_TOO_LONG", limit=str(limit))
        return model.bundle.source_tokenizer.encode(text)

    async def _run(
        self,
        request: TranslateRequest,
        model: ServedModel,
        maps: Sequence[MapChoice],
        sources: Sequence[TokenizedText],
    ) -> list[SentenceResult | HeedError]:
        if not sources:
            return []
        limit, wish = _output_limit(request, model), _variant(request, model, maps)
        requests = [SentenceRequest(tuple(source.ids), limit, wish, request.deadline) for source in sources]
        try:
            futures = model.engine.submit(requests)
        except QueueFullError as error:
            raise self._overloaded(error) from error
        except StoppedError as error:
            raise UnavailableError("DRAINING", "the server is shutting down", retry_seconds=1.0) from error
        self._metrics.sentences.labels(model.name, str(model.version)).inc(len(requests))
        # Cancelling this gather cancels every future, which the engine sees before its next step.
        answers = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        return [self._engine_outcome(answer) for answer in answers]

    def _overloaded(self, error: QueueFullError) -> HeedError:
        if error.wanted_tokens > error.limit_tokens:
            return InvalidFieldError(
                "contents", f"{error.wanted_tokens} tokens in all; the server holds {error.limit_tokens} at most"
            )
        self._metrics.shed.labels("queue_full").inc()
        return OverloadedError(
            f"the queue is full: {error.held_tokens} of {error.limit_tokens} tokens are held",
            _RETRY_SECONDS,
            limit_tokens=str(error.limit_tokens),
        )

    def _engine_outcome(self, answer: SentenceResult | BaseException) -> SentenceResult | HeedError:
        if isinstance(answer, SentenceResult):
            for phase, seconds in vars(answer.timings).items():
                self._metrics.phase_seconds.labels(phase).observe(seconds)
            return answer
        if isinstance(answer, DeadlineError):
            raise DeadlineExceededError from answer
        if isinstance(answer, StoppedError):
            raise UnavailableError("DRAINING", "the server is shutting down", retry_seconds=1.0) from answer
        if not isinstance(answer, EngineError):
            raise answer
        request_id = uuid.uuid4().hex
        _log.error("request %s: %s", request_id, answer)
        return InternalError(request_id)

    def _present(
        self,
        request: TranslateRequest,
        model: ServedModel,
        maps: Sequence[MapChoice],
        source: TokenizedText,
        result: SentenceResult,
    ) -> Translated:
        labels = (model.name, str(model.version))
        for hypothesis in result.hypotheses[:1]:
            self._metrics.log_probability.labels(*labels).observe(float(hypothesis.log_probabilities.mean()))
        if request.attention is None:
            hypotheses = tuple(_plain(model, hypothesis) for hypothesis in result.hypotheses)
            return Translated(source, (), hypotheses)
        with self._metrics.phase_seconds.labels("attention").time():
            source_words = words_of(source.text, source.tokens)
            hypotheses = tuple(
                _with_attention(model, request.attention, maps, source, source_words, hypothesis)
                for hypothesis in result.hypotheses
            )
        for best in hypotheses[:1]:
            if best.attention is not None and best.attention.measures.normalized_entropy.size:
                entropy = float(best.attention.measures.normalized_entropy.mean())
                self._metrics.attention_entropy.labels(*labels).observe(entropy)
                unaligned = best.attention.measures.unaligned_source_ratio
                self._metrics.unaligned_source.labels(*labels).observe(unaligned)
        return Translated(source, source_words, hypotheses)


def _plain(model: ServedModel, hypothesis: Hypothesis) -> TranslatedHypothesis:
    target = model.bundle.target_tokenizer.decode(hypothesis.target_ids)
    ended = hypothesis.target_ids[-1] == EOS_ID
    return TranslatedHypothesis(
        text=target.text,
        tokens=target.tokens if ended else target.tokens[:-1],
        log_probabilities=hypothesis.log_probabilities,
        finish_reason=hypothesis.finish_reason,
        words=(),
        attention=None,
    )


def _with_attention(
    model: ServedModel,
    request: AttentionRequest,
    maps: Sequence[MapChoice],
    source: TokenizedText,
    source_words: tuple[Word, ...],
    hypothesis: Hypothesis,
) -> TranslatedHypothesis:
    plain = _plain(model, hypothesis)
    words = words_of(plain.text, plain.tokens)
    alignment = model.bundle.manifest.alignment
    weights = aligned(hypothesis.attention[alignment.map], alignment)
    found = links(word_matrix(weights, words, source_words), words, source_words)
    of_words = request.view is View.WORD
    matrices = []
    for choice in maps:
        if choice.alignment:
            chosen, heads = weights[None], choice.heads
        else:  # (target_length, heads, source_length) -> (heads, target_length, source_length)
            chosen, heads = hypothesis.attention[choice.entry.name][:, list(choice.heads)].swapaxes(0, 1), choice.heads
        if request.mean_of_heads:
            chosen, heads = chosen.mean(axis=0, keepdims=True), ()
        if of_words:
            chosen = np.stack([word_matrix(head, words, source_words) for head in chosen])
        matrices.append(MatrixView(choice.entry, heads, of_words, chosen))
    attention = AttentionView(
        links=found,
        alignment=alignment,
        matrices=tuple(matrices),
        measures=measure(
            weights, hypothesis.log_probabilities, (source.tokens, source_words), (plain.tokens, words), found
        ),
    )
    return TranslatedHypothesis(
        plain.text, plain.tokens, plain.log_probabilities, plain.finish_reason, words, attention
    )


def select_maps(manifest: Manifest, emitted: frozenset[str], request: AttentionRequest | None) -> tuple[MapChoice, ...]:
    """The maps and heads whose matrices are returned, each once; ``emitted`` are those that a graph gives.

    Raises UnsupportedError for a map, layer or head that the model has not, or when nothing has all that is asked for.
    """
    if request is None:
        return ()
    maps = [entry for entry in manifest.attention_maps if entry.name in emitted]
    names, layers, heads = dict.fromkeys(request.maps), dict.fromkeys(request.layers), dict.fromkeys(request.heads)
    most_heads = max((entry.heads for entry in maps), default=0)
    unknown = [
        *(f"map {name!r}" for name in names if name not in {entry.name for entry in maps}),
        *(f"layer {layer}" for layer in layers if layer not in {entry.layer for entry in maps}),
        *(f"head {head}" for head in heads if not 0 <= head < most_heads),
    ]
    if unknown:
        raise _no_such_map(manifest, maps, unknown[0])
    if request.view is View.ALIGNMENT:
        return ()
    if request.view is not View.FULL and not (names or layers or heads):
        alignment = manifest.alignment
        one = alignment.heads if len(alignment.heads) == 1 else ()  # a mean is of no one head
        return (MapChoice(manifest.attention_map(alignment.map), one, alignment=True),)
    found = [
        MapChoice(entry, tuple(head for head in heads or range(entry.heads) if head < entry.heads))
        for entry in maps
        if (not names or entry.name in names) and (not layers or entry.layer in layers)
    ]
    if not (chosen := tuple(choice for choice in found if choice.heads)):
        raise _no_such_map(manifest, maps, "that is of these maps, layers and heads at once")
    return chosen


def _no_such_map(manifest: Manifest, maps: Sequence[AttentionMapEntry], what: str) -> UnsupportedError:
    has = ", ".join(f"{entry.name} (layer {entry.layer}, {entry.heads} heads)" for entry in maps)
    return UnsupportedError(
        "NO_SUCH_ATTENTION_MAP", f"{manifest.name} has no attention {what}; it has {has}", model=manifest.name
    )


def _variant(request: TranslateRequest, model: ServedModel, maps: Sequence[MapChoice]) -> AttentionVariant:
    """The least that the engine must emit for this request."""
    if request.attention is None:
        return "none"
    alignment = model.bundle.manifest.alignment.map
    return "alignment" if all(choice.entry.name == alignment for choice in maps) else "full"


def _output_limit(request: TranslateRequest, model: ServedModel) -> int:
    return request.max_output_tokens or model.bundle.manifest.limits.max_target_tokens


def _check_size(
    request: AttentionRequest | None,
    maps: Sequence[MapChoice],
    sources: Sequence[TokenizedText],
    answers: Sequence[SentenceResult | HeedError],
) -> None:
    """Refuse matrices that no reply can hold before any is made. Counts tokens: a matrix of words is no larger."""
    if request is None:
        return
    heads = sum(1 if request.mean_of_heads or choice.alignment else len(choice.heads) for choice in maps)
    weights = sum(
        heads * len(hypothesis.target_ids) * len(source.tokens)
        for source, answer in zip(sources, answers, strict=True)
        if isinstance(answer, SentenceResult)
        for hypothesis in answer.hypotheses
    )
    if (size := weights * request.bytes_per_weight) > request.max_bytes:
        raise InvalidFieldError(
            "attention",
            f"matrices of {size} bytes; {request.max_bytes} are allowed: send fewer texts, or ask for less",
            "REPLY_TOO_LARGE",
        )


class _Turn:
    """Lets others use the event loop whenever this request has used it for a while."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()

    async def over(self) -> None:
        if time.perf_counter() - self._begun > _TURN_SECONDS:
            await asyncio.sleep(0)
            self._begun = time.perf_counter()
