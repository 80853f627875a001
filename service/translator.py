"""Text in, translation and attention out: validate, tokenise, submit, detokenise, view.

Knows text, models and attention; nothing of gRPC or protobuf. Called by ``rpc``, on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from service.attention.words import Word
from service.bundle.tokenizer import TokenizedText
from service.decoding import (
    PLAIN,
    DecodingRequest,
    check_decoding,
    prefix_ids,
    suppressed_ids,
    to_decoding,
)
from service.engine.decoding import Decoding
from service.engine.errors import DeadlineError, EngineError, QueueFullError, StoppedError
from service.engine.sentence import Priority, SentenceRequest, SentenceResult, likely_target_tokens
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
from service.presenter import (
    AttentionRequest,
    MapChoice,
    Source,
    Translated,
    check_size,
    join,
    parts_of,
    present,
    select_maps,
    wanted_variant,
)
from service.recovery import Attempt, kept_literals, least_attention, written_language
from service.registry import ModelRegistry, ServedModel
from service.second_tries import checked
from service.sentences import Span, is_visible
from service.turn import Turn

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 0.2
_LONG_CHARACTERS = 2000


@dataclass(frozen=True)
class TranslateRequest:
    """``deadline`` is a time of ``time.monotonic``; empty strings and None mean: not said."""

    texts: tuple[str, ...]
    model: str = ""
    version: int | None = None
    source_language: str = ""
    target_language: str = ""
    contexts: tuple[tuple[str, ...], ...] = ()  # the sentences before each text
    split_sentences: bool | None = None  # None: as the model is made
    decoding: DecodingRequest = PLAIN
    prefixes: tuple[str, ...] = ()  # what each translation begins with
    targets: tuple[str, ...] | None = None  # what each translation is: nothing is searched, what is there is judged
    priority: Priority = Priority.NORMAL
    attention: AttentionRequest | None = None
    deadline: float | None = None


@dataclass(frozen=True)
class TranslateResult:
    """One outcome for each text, in order: a translation, or why there is none."""

    model: str
    version: int
    outcomes: tuple[Translated | HeedError, ...]
    seed: int | None = None  # what was drawn hangs on it


@dataclass(frozen=True)
class _Passage:
    """A text that is translated: its sentences, or all of it as one; and how each is to be decoded."""

    text: str
    spans: tuple[Span, ...]
    sources: tuple[Source, ...]
    decodings: tuple[Decoding, ...]


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
        decoding = request.decoding.of_model(model.bundle.manifest, model.engine.rows, request.targets is None)
        request = replace(request, decoding=decoding)
        self._check(request, model)
        request = replace(request, decoding=request.decoding.seeded())
        maps = select_maps(model.bundle.manifest, model.engine.attention_maps, request.attention)
        self._refuse_if_full(request, model)
        passages = await self._tokenize(request, model)
        whole = [passage for passage in passages if isinstance(passage, _Passage)]
        sources = [source for passage in whole for source in passage.sources]
        decodings = [decoding for passage in whole for decoding in passage.decodings]
        check_size(model.bundle.manifest, request.attention, maps, sources)
        answers, left_out = await self._run(request, model, maps, sources, decodings)
        check_size(model.bundle.manifest, request.attention, maps, sources, answers)
        results, outcomes = enumerate(answers), list[Translated | HeedError]()
        turn = Turn()
        for passage in passages:
            if isinstance(passage, HeedError):
                outcomes.append(passage)
                continue
            found = list[Translated | HeedError]()
            for source in passage.sources:
                place, result = next(results)
                if isinstance(result, SentenceResult):
                    words = left_out.get(place, ())
                    found.append(self._present(request, model, maps, source, result, words))
                else:
                    found.append(result)
                await turn.over()
            outcomes.append(_outcome_of(passage, found))
        for outcome in outcomes:
            if isinstance(outcome, HeedError):
                self._metrics.failures.labels(outcome.reason).inc()
                continue
            for omission in outcome.left_out:
                self._metrics.left_out.labels(model.name, str(model.version), omission.kind.value).inc()
        return TranslateResult(model.name, model.version, tuple(outcomes), request.decoding.seed)

    def _check(self, request: TranslateRequest, model: ServedModel) -> None:
        count = len(request.texts)
        if not 1 <= count <= self._limits.max_contents:
            raise InvalidFieldError(
                "contents" if request.targets is None else "pairs",
                f"{count} texts; 1 to {self._limits.max_contents} are allowed",
            )
        if model.bundle.manifest.target_language_pieces and not request.target_language:
            languages = ", ".join(model.bundle.manifest.target_languages)
            raise InvalidFieldError("target_language_code", f"{model.name} writes {languages}: name one of them")
        if request.contexts and not model.bundle.manifest.capabilities.document_context:
            raise UnsupportedError(
                "NO_DOCUMENT_CONTEXT",
                f"{model.name} translates sentences by themselves: leave contexts empty",
                model=model.name,
            )
        if len(request.prefixes) not in (0, count):
            raise InvalidFieldError(
                "target_prefixes", f"{len(request.prefixes)} prefixes for {count} texts; send none or as many"
            )
        if request.targets is not None and not model.bundle.manifest.capabilities.scoring:
            raise UnsupportedError(
                "NO_SCORING", f"{model.name} cannot judge a translation that is not its own", model=model.name
            )
        if any(request.prefixes) and not model.bundle.manifest.capabilities.prefix:
            raise UnsupportedError(
                "NO_PREFIX", f"{model.name} cannot go on from a prefix: leave target_prefixes", model=model.name
            )
        check_decoding(request.decoding, model.bundle.manifest, model.engine.rows)

    def _refuse_if_full(self, request: TranslateRequest, model: ServedModel) -> None:
        """A full queue is answered before any work is done for the answer. A text has at least two source tokens."""
        load = model.engine.load()
        rows = max(request.decoding.beam_size or 1, request.decoding.hypotheses)
        target = 2 if request.targets is not None else rows * likely_target_tokens(2, _output_limit(request, model))
        wanted = len(request.texts) * (2 + target)
        if load.held_tokens + wanted > load.limit_tokens:
            raise self._overloaded(request, QueueFullError(wanted, load.held_tokens, load.limit_tokens))

    async def _tokenize(self, request: TranslateRequest, model: ServedModel) -> list[_Passage | HeedError]:
        """A wrong text is an outcome of its own, not an end of the request."""
        passages: list[_Passage | HeedError] = []
        room = model.engine.load().limit_tokens
        suppressed = suppressed_ids(request.decoding, model.bundle)
        seconds = self._metrics.phase_seconds.labels("tokenize")
        turn = Turn()
        for place, text in enumerate(request.texts):
            arguments = (request, place, text, model, suppressed)
            try:
                with seconds.time():
                    if len(text) > _LONG_CHARACTERS:  # others are served while it is cut
                        passage = await asyncio.to_thread(self._tokenize_passage, *arguments)
                    else:
                        passage = self._tokenize_passage(*arguments)
            except InvalidFieldError as error:
                passages.append(error)
                continue
            finally:
                await turn.over()
            passages.append(passage)
            room -= sum(len(source.text.tokens) for source in passage.sources)
            if room < 0:  # the rest would be cut for nothing
                limit = model.engine.load().limit_tokens
                raise self._overloaded(request, QueueFullError(limit - room, 0, limit))
        return passages

    def _tokenize_passage(
        self, request: TranslateRequest, place: int, text: str, model: ServedModel, suppressed: frozenset[int]
    ) -> _Passage:
        """A text's sentences, each with the last of the sentences before it, as many as the model reads.

        Raises InvalidFieldError.
        """
        field = f"contents[{place}]" if request.targets is None else f"pairs[{place}].source"
        self._check_characters(field, text)
        spans = parts_of(model.bundle, text, request.source_language, request.split_sentences, request.target_language)
        sentences = [
            self._tokenize_one(field, span.of(text) if len(spans) > 1 else text, model, request.target_language)
            for span in spans
        ]
        before = self._tokenize_context(request, place, model)
        read = model.bundle.manifest.context_sentences
        begun = self._check_begun(request, place, spans)
        sources = [
            Source(
                sentence,
                tuple([*before, *sentences[:number]][-read:] if read else ()),
                model.bundle.answers_in_capitals(sentence.text, begun),
                kept_literals(model.bundle, sentence.text, request.target_language) if request.targets is None else (),
                written_language(model.bundle, request.target_language),
            )
            for number, sentence in enumerate(sentences)
        ]
        prefix = self._tokenize_begun(request, place, model, begun, any(source.capitals for source in sources))
        decodings = [
            to_decoding(request.decoding, suppressed, prefix, (place, number)) for number in range(len(sources))
        ]
        return _Passage(text, spans, tuple(sources), tuple(decodings))

    def _check_begun(self, request: TranslateRequest, place: int, spans: Sequence[Span]) -> str:
        """What is given of a translation: its beginning, all of it, or nothing. Raises InvalidFieldError."""
        field, begun = _begun(request, place)
        if begun or request.targets is not None:
            self._check_characters(field, begun)
        if begun and len(spans) > 1:
            raise InvalidFieldError(
                field, f"the text has {len(spans)} sentences; leave the prefix, or set sentence_splitting to NONE"
            )
        return begun

    def _tokenize_begun(
        self, request: TranslateRequest, place: int, model: ServedModel, begun: str, capitals: bool
    ) -> tuple[int, ...]:
        if not begun:
            return ()
        field, _ = _begun(request, place)
        tokenized = model.bundle.encode_begun(begun, capitals)
        most = _output_limit(request, model)
        return prefix_ids(replace(tokenized, text=begun), field, model.bundle, most, request.targets is not None)

    def _tokenize_context(self, request: TranslateRequest, place: int, model: ServedModel) -> list[TokenizedText]:
        if not request.contexts:
            return []
        before = request.contexts[place]
        numbers = range(max(0, len(before) - model.bundle.manifest.context_sentences), len(before))
        fields = {number: f"contexts[{place}].source_sentences[{number}]" for number in numbers}
        for number, field in fields.items():
            self._check_characters(field, before[number])
        language = request.target_language
        return [self._tokenize_one(field, before[number], model, language) for number, field in fields.items()]

    def _check_characters(self, field: str, text: str) -> None:
        if not is_visible(text):
            raise InvalidFieldError(field, "empty", "EMPTY_TEXT")
        limit = self._limits.max_characters
        if len(text) > limit:
            raise InvalidFieldError(
                field, f"{len(text)} characters; {limit} are allowed", "TEXT_TOO_LONG", limit=str(limit)
            )

    def _tokenize_one(self, field: str, text: str, model: ServedModel, target_language: str) -> TokenizedText:
        tokens = len(model.bundle.encode_ids(text, target_language))  # offsets cost many times as much: later
        limit = model.bundle.manifest.limits.max_source_tokens
        if tokens > limit:
            problem = f"{tokens} tokens; {model.name} allows {limit}"
            raise InvalidFieldError(field, problem, "TEXT_TOO_LONG", limit=str(limit))
        return model.bundle.encode(text, target_language)

    async def _run(
        self,
        request: TranslateRequest,
        model: ServedModel,
        maps: Sequence[MapChoice],
        sources: Sequence[Source],
        decodings: Sequence[Decoding],
    ) -> tuple[list[SentenceResult | HeedError], dict[int, tuple[Word, ...]]]:
        """The answers, and by their places the words that they leave out."""
        if not sources:
            return [], {}
        limit, wish = _output_limit(request, model), wanted_variant(model.bundle.manifest, request.attention, maps)
        attention = least_attention(model.bundle) if wish == "none" and request.targets is None else wish
        requests = [
            SentenceRequest(
                tuple(source.text.ids),
                limit if request.targets is None else len(decoding.prefix_ids),
                attention,
                request.deadline,
                tuple(tuple(sentence.ids) for sentence in source.context),
                decoding,
                request.priority,
            )
            for source, decoding in zip(sources, decodings, strict=True)
        ]
        answers = await self._submit(request, model, requests)
        self._metrics.sentences.labels(model.name, str(model.version)).inc(len(requests))
        attempts = [
            Attempt(model.bundle, source.text, source.kept, asked, wish, model.engine.rows, request.target_language)
            for source, asked in zip(sources, requests, strict=True)
        ]
        count = self._metrics.second_tries.labels(model.name, str(model.version)).inc
        await self._go_on_where_empty(request, model, attempts, answers, count)
        done = {place: answer for place, answer in enumerate(answers) if isinstance(answer, SentenceResult)}
        left_out = dict[int, tuple[Word, ...]]()
        reader = self._registry.reader_of(model)
        for place, one in (await checked(model.engine, attempts, done, count, reader)).items():
            answers[place], left_out[place] = one.result, one.left_out
        return answers, left_out

    async def _go_on_where_empty(
        self,
        request: TranslateRequest,
        model: ServedModel,
        attempts: Sequence[Attempt],
        answers: list[SentenceResult | HeedError],
        count: Callable[[int], None],
    ) -> None:
        """What has no text must be asked for again, for a token more each time: there is nothing to give instead.
        Where the queue is full these texts fail, and no other."""
        while empty := _empty(attempts, answers):
            count(len(empty))
            found: Sequence[SentenceResult | HeedError]
            try:
                found = await self._submit(request, model, list(empty.values()))
            except OverloadedError as error:
                found = [error] * len(empty)
            for place, longer in zip(empty, found, strict=True):
                answers[place] = longer

    async def _submit(
        self, request: TranslateRequest, model: ServedModel, requests: list[SentenceRequest]
    ) -> list[SentenceResult | HeedError]:
        try:
            futures = model.engine.submit(requests)
        except QueueFullError as error:
            raise self._overloaded(request, error) from error
        except StoppedError as error:
            raise UnavailableError("DRAINING", "the server is shutting down", retry_seconds=1.0) from error
        # Cancelling this gather cancels every future, which the engine sees before its next step.
        answers = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        return [self._engine_outcome(answer) for answer in answers]

    def _overloaded(self, request: TranslateRequest, error: QueueFullError) -> HeedError:
        if error.wanted_tokens > error.limit_tokens:
            return InvalidFieldError(
                "contents" if request.targets is None else "pairs",
                f"{error.wanted_tokens} tokens or more, with those that are likely to be written; the server holds "
                f"{error.limit_tokens} at most: send fewer texts, or ask for fewer hypotheses",
                "CALL_TOO_LARGE",
                limit=str(error.limit_tokens),
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
        source: Source,
        result: SentenceResult,
        left_out: Sequence[Word],
    ) -> Translated:
        labels = (model.name, str(model.version))
        for hypothesis in result.hypotheses[:1] if request.targets is None else ():
            self._metrics.log_probability.labels(*labels).observe(float(hypothesis.log_probabilities.mean()))
        if request.attention is None:
            return present(model.bundle, None, maps, source, result, left_out)
        with self._metrics.phase_seconds.labels("attention").time():
            translated = present(model.bundle, request.attention, maps, source, result, left_out)
        for best in translated.hypotheses[:1]:
            if (
                request.targets is None
                and best.attention is not None
                and best.attention.measures.normalized_entropy.size
            ):
                entropy = float(best.attention.measures.normalized_entropy.mean())
                self._metrics.attention_entropy.labels(*labels).observe(entropy)
                unaligned = best.attention.measures.unaligned_source_ratio
                self._metrics.unaligned_source.labels(*labels).observe(unaligned)
        return translated


def _outcome_of(passage: _Passage, found: list[Translated | HeedError]) -> Translated | HeedError:
    """The first failure among a text's sentences is the text's: a translation with a hole in it would not be seen."""
    translated = [outcome for outcome in found if isinstance(outcome, Translated)]
    if len(translated) < len(found):
        return next(outcome for outcome in found if isinstance(outcome, HeedError))
    return translated[0] if len(found) == 1 else join(passage.text, passage.spans, translated)


def _output_limit(request: TranslateRequest, model: ServedModel) -> int:
    return request.decoding.max_output_tokens or model.bundle.manifest.limits.max_target_tokens


def _empty(attempts: Sequence[Attempt], answers: Sequence[SentenceResult | HeedError]) -> dict[int, SentenceRequest]:
    """By their places, what to ask for instead of the answers that have no text."""
    done = ((place, answer) for place, answer in enumerate(answers) if isinstance(answer, SentenceResult))
    return {place: ask for place, answer in done if (ask := attempts[place].longer(answer)) is not None}


def _begun(request: TranslateRequest, place: int) -> tuple[str, str]:
    """What the client gives of a translation, and the name of its field before it."""
    if request.targets is not None:
        return f"pairs[{place}].target", request.targets[place]
    return f"target_prefixes[{place}]", request.prefixes[place] if request.prefixes else ""
