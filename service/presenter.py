"""What a reply says of a sentence: its text, tokens and words, and the views of its attention that were asked for.

Token ids and weights in, a ``Translated`` out; which maps a request means, and whether their matrices fit a reply. Pure
functions of a bundle's manifest and tokenizers; no queue, no wire. Called by the translator.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from service.attention.measures import Measures, measure
from service.attention.views import Link, aligned, links, word_matrix
from service.attention.words import Word, words_of
from service.bundle.manifest import AlignmentEntry, AttentionMapEntry, AttentionVariant, Manifest
from service.bundle.repository import Bundle
from service.bundle.tokenizer import Token, TokenizedText
from service.engine.hypothesis import FinishReason, Floats, Hypothesis
from service.engine.sentence import SentenceResult
from service.errors import HeedError, InvalidFieldError, UnsupportedError, shown
from service.literals import Literal, missing
from service.sentences import Span, readable_parts, rejoin


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
class MatrixView:
    """``weights`` (heads, rows, columns), in words or in the map's units.

    Rows are of the target and columns of the source; of an encoder's own map both are of the source; of a decoder's own
    map rows are the tokens that were written, column 0 is `<s>`, column j the token before row j.
    """

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
    """``tokens`` as in ``engine.hypothesis.Hypothesis``; ``log_probabilities`` has one for each."""

    text: str
    tokens: tuple[Token, ...]
    log_probabilities: Floats
    finish_reason: FinishReason
    score: float  # what ranks it among the others
    words: tuple[Word, ...]
    attention: AttentionView | None


@dataclass(frozen=True)
class Source:
    """A text to translate, and the sentences before it that the model reads.

    ``capitals``: it is written in capitals, and its translation is to be. ``kept``: what its translation, in
    ``target_language`` where that is known, is to have of it as it is.
    """

    text: TokenizedText
    context: tuple[TokenizedText, ...] = ()
    capitals: bool = False
    kept: tuple[Literal, ...] = ()
    target_language: str = ""


class OmissionKind(enum.Enum):
    """How it is known that a translation lacks it: it is not written, or not looked at (``service.coverage``)."""

    LITERAL = "literal"
    WORD = "word"


@dataclass(frozen=True)
class Omission:
    """A part of a text that its best hypothesis lacks."""

    span: Span
    kind: OmissionKind


@dataclass(frozen=True)
class ContextSentence:
    """A sentence before the text; its words count its own tokens."""

    source: TokenizedText
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Translated:
    """One text's outcome. ``source_words`` and ``context`` are empty without attention; ``sentences`` are there where
    the text was split: then they hold the words and the attention. ``left_out`` is what the best hypothesis lacks, in
    the order of the text."""

    source: TokenizedText
    source_words: tuple[Word, ...]
    hypotheses: tuple[TranslatedHypothesis, ...]
    context: tuple[ContextSentence, ...] = ()
    sentences: tuple[TranslatedSentence, ...] = ()
    left_out: tuple[Omission, ...] = ()


@dataclass(frozen=True)
class TranslatedSentence:
    """A sentence of a text that was split: where it stands in the text, and its translation in the text's.

    In ``outcome`` the source's offsets count the whole text, the target's the sentence's own translation.
    """

    source: Span
    target: Span
    outcome: Translated


def select_maps(manifest: Manifest, emitted: frozenset[str], request: AttentionRequest | None) -> tuple[MapChoice, ...]:
    """The maps and heads whose matrices are returned, each once; ``emitted`` are those that a graph gives.

    Raises UnsupportedError for a map, layer or head that the model has not, when nothing has all that is asked for, or
    when the model attends to nothing.
    """
    if request is None:
        return ()
    if manifest.alignment is None:
        raise UnsupportedError(
            "NO_ATTENTION", f"{manifest.name} has no attention to show: leave attention out", model=manifest.name
        )
    maps = [entry for entry in manifest.attention_maps if entry.name in emitted]
    names, layers, heads = dict.fromkeys(request.maps), dict.fromkeys(request.layers), dict.fromkeys(request.heads)
    most_heads = max((entry.heads for entry in maps), default=0)
    all_names, all_layers = {entry.name for entry in maps}, {entry.layer for entry in maps}
    unknown = itertools.chain(
        (f"map {shown(name)}" for name in names if name not in all_names),
        (f"layer {layer}" for layer in layers if layer not in all_layers),
        (f"head {head}" for head in heads if not 0 <= head < most_heads),
    )
    for first in unknown:
        raise _no_such_map(manifest, maps, first)
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


def wanted_variant(manifest: Manifest, request: AttentionRequest | None, maps: Sequence[MapChoice]) -> AttentionVariant:
    """The least that the engine must emit for this request."""
    if request is None or manifest.alignment is None:
        return "none"
    alignment = manifest.alignment.map
    return "alignment" if all(choice.entry.name == alignment for choice in maps) else "full"


def check_size(
    manifest: Manifest,
    request: AttentionRequest | None,
    maps: Sequence[MapChoice],
    sources: Sequence[Source],
    answers: Sequence[SentenceResult | HeedError] | None = None,
) -> None:
    """Refuse matrices that no reply can hold before any is made. Counts tokens: a matrix of words is no larger.

    Without ``answers`` by the least that they can be, one token each: what is sure to be refused is not decoded first.
    """
    if request is None:
        return
    written = [[1]] * len(sources)
    if answers is not None:
        done = [answer.hypotheses if isinstance(answer, SentenceResult) else () for answer in answers]
        written = [[len(hypothesis.target_ids) for hypothesis in hypotheses] for hypotheses in done]
    weights = sum(
        (1 if request.mean_of_heads or choice.alignment else len(choice.heads)) * rows * columns
        for source, lengths in zip(sources, written, strict=True)
        for target in lengths
        for choice in maps
        for rows, columns in [_shape(manifest, choice.entry, source, target)]
    )
    if (size := weights * request.bytes_per_weight) > request.max_bytes:
        raise InvalidFieldError(
            "attention",
            f"matrices of {size} bytes; {request.max_bytes} are allowed: send fewer texts, or ask for less",
            "REPLY_TOO_LARGE",
        )


def _shape(manifest: Manifest, entry: AttentionMapEntry, source: Source, target: int) -> tuple[int, int]:
    """Rows and columns of a map, in tokens."""
    read = manifest.one_shot_length or len(source.text.tokens)
    return {
        "cross": (target, read),
        "encoder_self": (read, read),
        "decoder_self": (target, target),
        "context": (target, sum(len(sentence.tokens) for sentence in source.context)),
        "context_sentence": (target, len(source.context)),
    }[entry.kind]


def present(
    bundle: Bundle,
    request: AttentionRequest | None,
    maps: Sequence[MapChoice],
    source: Source,
    result: SentenceResult,
    left_out: Sequence[Word] = (),
) -> Translated:
    """Detokenise every hypothesis and view its attention; ``maps`` are what ``select_maps`` chose.

    ``left_out``: words of the source that the best hypothesis does not rest on.
    """
    if request is None:
        plain = (_plain(bundle, hypothesis, source.capitals) for hypothesis in result.hypotheses)
        return _translated(source, left_out, source.text, (), tuple(plain))
    text = source.text.padded(bundle.manifest.one_shot_length or 0)  # attention to padding is attention too
    source_words = words_of(text.text, text.tokens)
    context = tuple(ContextSentence(sentence, words_of(sentence.text, sentence.tokens)) for sentence in source.context)
    read = _Read(text, source_words, _words_of_all(context), source.capitals)
    hypotheses = tuple(_with_attention(bundle, request, maps, read, hypothesis) for hypothesis in result.hypotheses)
    return _translated(source, left_out, text, source_words, hypotheses, context)


def _translated(
    source: Source,
    left_out: Sequence[Word],
    text: TokenizedText,
    words: tuple[Word, ...],
    hypotheses: tuple[TranslatedHypothesis, ...],
    context: tuple[ContextSentence, ...] = (),
) -> Translated:
    not_there = missing(source.kept, hypotheses[0].text, source.target_language)
    lost = [Omission(literal.span, OmissionKind.LITERAL) for literal in not_there]
    lost += [Omission(Span(word.begin, word.end), OmissionKind.WORD) for word in left_out]
    in_order = tuple(sorted(lost, key=lambda omission: omission.span.begin))
    return Translated(text, words, hypotheses, context, left_out=in_order)


def parts_of(
    bundle: Bundle, text: str, language: str = "", split: bool | None = None, target_language: str = ""
) -> tuple[Span, ...]:
    """What of a text is translated by itself: its sentences, cut where the model cannot read them, or all of it.

    ``language`` is the text's, by default the model's first; ``split`` None: as the model is made.
    """
    manifest = bundle.manifest
    if not (manifest.splits_sentences if split is None else split):
        return (Span(0, len(text)),)

    def fits(part: str) -> bool:
        return len(bundle.encode_ids(part, target_language)) <= manifest.limits.max_source_tokens

    return readable_parts(text, language or next(iter(manifest.source_languages), ""), fits)


def join(text: str, spans: Sequence[Span], outcomes: Sequence[Translated]) -> Translated:
    """The outcome of a text from those of its sentences, which stand at ``spans`` with white space between them.

    That white space is kept. There is one hypothesis, of the sentences' best; its tokens are theirs, one `</s>` each.
    """
    best_of_each = [outcome.hypotheses[0] for outcome in outcomes]
    written, places = rejoin(text, spans, [best.text for best in best_of_each])
    tokens, sentences = list[Token](), list[TranslatedSentence]()
    for span, place, outcome, best in zip(spans, places, outcomes, best_of_each, strict=True):
        tokens += [_moved(token, place.begin) for token in best.tokens]
        source = TokenizedText(text, tuple(_moved(token, span.begin) for token in outcome.source.tokens))
        words = tuple(_moved(word, span.begin) for word in outcome.source_words)
        left_out = tuple(
            replace(lost, span=Span(lost.span.begin + span.begin, lost.span.end + span.begin))
            for lost in outcome.left_out
        )
        moved = replace(outcome, source=source, source_words=words, left_out=left_out)
        sentences.append(TranslatedSentence(span, place, moved))
    cut = any(best.finish_reason is FinishReason.LENGTH for best in best_of_each)
    whole = TranslatedHypothesis(
        text=written,
        tokens=tuple(tokens),
        log_probabilities=np.concatenate([best.log_probabilities for best in best_of_each]),
        finish_reason=FinishReason.LENGTH if cut else FinishReason.END_OF_SENTENCE,
        score=sum(best.score for best in best_of_each),
        words=(),
        attention=None,
    )
    read = tuple(token for sentence in sentences for token in sentence.outcome.source.tokens)
    left_out = tuple(lost for sentence in sentences for lost in sentence.outcome.left_out)
    return Translated(TokenizedText(text, read), (), (whole,), sentences=tuple(sentences), left_out=left_out)


_Placed = TypeVar("_Placed", Token, Word)


def _moved(part: _Placed, by: int) -> _Placed:
    return replace(part, begin=part.begin + by, end=part.end + by)


@dataclass(frozen=True)
class _Read:
    """What a hypothesis may have looked at; ``context_words`` count the tokens of all the context's sentences."""

    source: TokenizedText
    source_words: tuple[Word, ...]
    context_words: tuple[Word, ...]
    capitals: bool


def _words_of_all(context: Sequence[ContextSentence]) -> tuple[Word, ...]:
    words: list[Word] = []
    before = 0
    for sentence in context:
        words += [
            replace(word, begin_token=word.begin_token + before, end_token=word.end_token + before)
            for word in sentence.words
        ]
        before += len(sentence.source.tokens)
    return tuple(words)


def _plain(bundle: Bundle, hypothesis: Hypothesis, capitals: bool) -> TranslatedHypothesis:
    target = bundle.decode(hypothesis.target_ids, capitals)
    return TranslatedHypothesis(
        text=target.text,
        tokens=target.tokens,
        log_probabilities=hypothesis.log_probabilities,
        finish_reason=hypothesis.finish_reason,
        score=hypothesis.score,
        words=(),
        attention=None,
    )


def _has_words(entry: AttentionMapEntry) -> bool:
    """A block is of no word, nor is a sentence; the columns of a target over itself begin with `<s>` and lack what was
    written last."""
    return entry.tokens_per_unit == 1 and entry.kind not in ("decoder_self", "context_sentence")


def _with_attention(
    bundle: Bundle,
    request: AttentionRequest,
    maps: Sequence[MapChoice],
    read: _Read,
    hypothesis: Hypothesis,
) -> TranslatedHypothesis:
    plain, source_words = _plain(bundle, hypothesis, read.capitals), read.source_words
    words = words_of(plain.text, plain.tokens)
    alignment = bundle.manifest.alignment
    if alignment is None:
        raise ValueError(f"{bundle.label} has no attention; select_maps refuses such a request")
    weights = aligned(hypothesis.attention[alignment.map], alignment)
    found = links(word_matrix(weights, words, source_words), words, source_words)
    matrices = []
    for choice in maps:
        if choice.alignment:
            chosen, heads = weights[None], choice.heads
        else:  # (target_length, heads, source_length) -> (heads, target_length, source_length)
            chosen, heads = hypothesis.attention[choice.entry.name][:, list(choice.heads)].swapaxes(0, 1), choice.heads
        if request.mean_of_heads:
            chosen, heads = chosen.mean(axis=0, keepdims=True), ()
        of_words = request.view is View.WORD and _has_words(choice.entry)
        if of_words:
            rows = source_words if choice.entry.kind == "encoder_self" else words
            columns = read.context_words if choice.entry.kind == "context" else source_words
            chosen = np.stack([word_matrix(head, rows, columns) for head in chosen])
        matrices.append(MatrixView(choice.entry, heads, of_words, chosen))
    attention = AttentionView(
        links=found,
        alignment=alignment,
        matrices=tuple(matrices),
        measures=measure(
            weights, hypothesis.log_probabilities, (read.source.tokens, source_words), (plain.tokens, words), found
        ),
    )
    return replace(plain, words=words, attention=attention)
