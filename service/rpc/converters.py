"""Protobuf messages to domain values and back. Pure functions; no decisions beyond the wire's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from heed.v1 import attention_pb2, model_pb2, translation_pb2, translation_service_pb2

from service.attention.measures import Measures
from service.attention.types import Floats
from service.attention.words import Word
from service.bundle.manifest import AlignmentEntry, AttentionMapEntry, Manifest
from service.bundle.tokenizer import Token
from service.decoding import DecodingRequest, SamplingRequest
from service.engine.hypothesis import FinishReason
from service.engine.sentence import Priority
from service.errors import HeedError, InvalidFieldError, shown
from service.presenter import (
    AttentionRequest,
    AttentionView,
    ContextSentence,
    MatrixView,
    OmissionKind,
    Translated,
    TranslatedHypothesis,
    TranslatedSentence,
    View,
)
from service.registry import RefusedModel, ServedModel
from service.rpc.status import to_status
from service.translator import TranslateRequest

_VIEWS = {
    attention_pb2.ATTENTION_VIEW_ALIGNMENT: View.ALIGNMENT,
    attention_pb2.ATTENTION_VIEW_WORD: View.WORD,
    attention_pb2.ATTENTION_VIEW_TOKEN: View.TOKEN,
    attention_pb2.ATTENTION_VIEW_FULL: View.FULL,
}
_KINDS = {
    "cross": attention_pb2.ATTENTION_KIND_CROSS,
    "encoder_self": attention_pb2.ATTENTION_KIND_ENCODER_SELF,
    "decoder_self": attention_pb2.ATTENTION_KIND_DECODER_SELF,
    "context": attention_pb2.ATTENTION_KIND_CONTEXT,
    "context_sentence": attention_pb2.ATTENTION_KIND_CONTEXT,
}
_FINISH_REASONS = {
    FinishReason.END_OF_SENTENCE: translation_pb2.FINISH_REASON_END_OF_SENTENCE,
    FinishReason.LENGTH: translation_pb2.FINISH_REASON_LENGTH,
}
_GENERATIONS = {
    "autoregressive": model_pb2.GENERATION_AUTOREGRESSIVE,
    "one_shot": model_pb2.GENERATION_ONE_SHOT,
}
_SPLITTINGS: dict[int, bool | None] = {
    translation_service_pb2.SENTENCE_SPLITTING_UNSPECIFIED: None,
    translation_service_pb2.SENTENCE_SPLITTING_NONE: False,
    translation_service_pb2.SENTENCE_SPLITTING_SENTENCES: True,
}
_PRIORITIES: dict[int, Priority] = {
    translation_service_pb2.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    translation_service_pb2.PRIORITY_LOW: Priority.LOW,
    translation_service_pb2.PRIORITY_NORMAL: Priority.NORMAL,
    translation_service_pb2.PRIORITY_HIGH: Priority.HIGH,
}
#: Of DecodingOptions, by the same names in DecodingRequest.
_DECODING_FIELDS = (
    "max_output_tokens",
    "min_output_tokens",
    "beam_size",
    "hypotheses",
    "length_penalty",
    "coverage_penalty",
    "repetition_penalty",
    "no_repeat_ngram_size",
)
_OMISSION_KINDS = {
    OmissionKind.LITERAL: translation_pb2.OMISSION_KIND_LITERAL,
    OmissionKind.WORD: translation_pb2.OMISSION_KIND_WORD,
}
_DATA_TYPES = {
    attention_pb2.MATRIX_DATA_TYPE_FLOAT32: "<f4",
    attention_pb2.MATRIX_DATA_TYPE_FLOAT16: "<f2",
    attention_pb2.MATRIX_DATA_TYPE_UINT8: "u1",
}


# --- requests --------------------------------------------------------------------------------------------------------


def to_request(message: translation_service_pb2.TranslateRequest, deadline: float | None) -> TranslateRequest:
    """Raises InvalidFieldError for a media type or an enum value that is none of ours."""
    if message.mime_type not in ("", "text/plain"):
        raise InvalidFieldError("mime_type", f"{shown(message.mime_type)}; only text/plain is allowed")
    _check_counts(message.contexts, len(message.contents))
    return TranslateRequest(
        texts=tuple(message.contents),
        model=message.model,
        version=message.version if message.HasField("version") else None,
        source_language=message.source_language_code,
        target_language=message.target_language_code,
        contexts=tuple(tuple(context.source_sentences) for context in message.contexts),
        split_sentences=_to_splitting(message.sentence_splitting),
        decoding=_to_decoding(message.decoding),
        prefixes=tuple(message.target_prefixes),
        priority=_to_priority(message.priority),
        attention=_to_attention_request(message.attention) if message.HasField("attention") else None,
        deadline=deadline,
    )


def to_score_request(message: translation_service_pb2.ScoreRequest, deadline: float | None) -> TranslateRequest:
    """A translation whose words are given. Raises InvalidFieldError."""
    _check_counts(message.contexts, len(message.pairs))
    return TranslateRequest(
        texts=tuple(pair.source for pair in message.pairs),
        targets=tuple(pair.target for pair in message.pairs),
        model=message.model,
        version=message.version if message.HasField("version") else None,
        source_language=message.source_language_code,
        target_language=message.target_language_code,
        contexts=tuple(tuple(context.source_sentences) for context in message.contexts),
        split_sentences=False,
        priority=_to_priority(message.priority),
        attention=_to_attention_request(message.attention) if message.HasField("attention") else None,
        deadline=deadline,
    )


def _check_counts(contexts: Sequence[object], texts: int) -> None:
    """Before they are read one by one: a message has room for millions of empty ones."""
    if len(contexts) not in (0, texts):
        raise InvalidFieldError("contexts", f"{len(contexts)} contexts for {texts} texts; send none or as many")


def _to_decoding(message: translation_pb2.DecodingOptions) -> DecodingRequest:
    """What is not said has the request's own default, or the model's."""
    said = {field.name: value for field, value in message.ListFields() if field.name in _DECODING_FIELDS}
    if not message.HasField("sampling"):
        return DecodingRequest(suppressed_pieces=tuple(message.suppressed_pieces), **said)
    drawn = {field.name: value for field, value in message.sampling.ListFields()}
    seed = drawn.pop("seed", None)
    sampling = SamplingRequest(**drawn)
    return DecodingRequest(suppressed_pieces=tuple(message.suppressed_pieces), sampling=sampling, seed=seed, **said)


def _to_priority(priority: translation_service_pb2.Priority) -> Priority:
    if priority not in _PRIORITIES:
        raise InvalidFieldError("priority", f"{priority}; choose LOW, NORMAL, HIGH or leave it out")
    return _PRIORITIES[priority]


def _to_splitting(splitting: translation_service_pb2.SentenceSplitting) -> bool | None:
    if splitting not in _SPLITTINGS:
        raise InvalidFieldError("sentence_splitting", f"{splitting}; choose NONE, SENTENCES or leave it out")
    return _SPLITTINGS[splitting]


def _to_attention_request(message: attention_pb2.AttentionOptions) -> AttentionRequest:
    view = _VIEWS.get(message.view)
    if view is None:
        raise InvalidFieldError("attention.view", f"{message.view}; choose ALIGNMENT, WORD, TOKEN or FULL")
    if message.head_reduction not in attention_pb2.HeadReduction.values():
        raise InvalidFieldError("attention.head_reduction", f"{message.head_reduction}; choose MEAN or leave it out")
    return AttentionRequest(
        view=view,
        maps=tuple(message.maps),
        layers=tuple(message.layers),
        heads=tuple(message.heads),
        mean_of_heads=message.head_reduction == attention_pb2.HEAD_REDUCTION_MEAN,
        bytes_per_weight=np.dtype(_DATA_TYPES[to_data_type(message)]).itemsize,
    )


def to_data_type(message: attention_pb2.AttentionOptions) -> attention_pb2.MatrixDataType:
    """How the reply's matrices are packed: FLOAT32 unless another type is asked for."""
    chosen = message.data_type or attention_pb2.MATRIX_DATA_TYPE_FLOAT32
    if chosen not in _DATA_TYPES:
        raise InvalidFieldError("attention.data_type", f"{chosen}; choose FLOAT32, FLOAT16 or UINT8")
    return chosen


# --- replies ---------------------------------------------------------------------------------------------------------


def from_outcome(
    outcome: Translated | HeedError, data_type: attention_pb2.MatrixDataType
) -> translation_pb2.Translation:
    if isinstance(outcome, HeedError):
        return translation_pb2.Translation(status=to_status(outcome))
    message = translation_pb2.Translation(
        hypotheses=[_from_hypothesis(hypothesis, data_type) for hypothesis in outcome.hypotheses]
    )
    message.status.SetInParent()  # present, with code 0
    message.sentences.extend(_from_sentence(sentence, data_type) for sentence in outcome.sentences)
    for lost in outcome.left_out:
        text, kind = lost.span.of(outcome.source.text), _OMISSION_KINDS[lost.kind]
        message.left_out.add(begin_offset=lost.span.begin, end_offset=lost.span.end, text=text, kind=kind)
    if outcome.source_words:
        message.source_tokens.extend(_from_token(token) for token in outcome.source.tokens)
        message.source_words.extend(_from_word(word) for word in outcome.source_words)
        message.context_sentences.extend(_from_context_sentence(sentence) for sentence in outcome.context)
    return message


def _from_sentence(
    sentence: TranslatedSentence, data_type: attention_pb2.MatrixDataType
) -> translation_pb2.TranslatedSentence:
    return translation_pb2.TranslatedSentence(
        begin_offset=sentence.source.begin,
        end_offset=sentence.source.end,
        target_begin_offset=sentence.target.begin,
        target_end_offset=sentence.target.end,
        translation=from_outcome(sentence.outcome, data_type),
    )


def _from_context_sentence(sentence: ContextSentence) -> translation_pb2.ContextSentence:
    return translation_pb2.ContextSentence(
        text=sentence.source.text,
        tokens=[_from_token(token) for token in sentence.source.tokens],
        words=[_from_word(word) for word in sentence.words],
    )


def _from_hypothesis(
    hypothesis: TranslatedHypothesis, data_type: attention_pb2.MatrixDataType
) -> translation_pb2.Hypothesis:
    message = translation_pb2.Hypothesis(
        text=hypothesis.text,
        log_probability=float(hypothesis.log_probabilities.sum()),
        finish_reason=_FINISH_REASONS[hypothesis.finish_reason],
        score=hypothesis.score,
        tokens=[
            _from_token(token, float(log_probability))
            for token, log_probability in zip(hypothesis.tokens, hypothesis.log_probabilities, strict=True)
        ],
        words=[_from_word(word) for word in hypothesis.words],
    )
    if hypothesis.attention is not None:
        message.attention.CopyFrom(_from_attention(hypothesis.attention, data_type))
    return message


def _from_token(token: Token, log_probability: float | None = None) -> translation_pb2.Token:
    return translation_pb2.Token(
        piece=token.piece,
        id=token.id,
        begin_offset=token.begin,
        end_offset=token.end,
        special=token.special,
        log_probability=log_probability,
    )


def _from_word(word: Word) -> translation_pb2.Word:
    return translation_pb2.Word(
        text=word.text,
        begin_offset=word.begin,
        end_offset=word.end,
        begin_token=word.begin_token,
        end_token=word.end_token,
        special=word.special,
        is_piece=word.is_piece,
    )


def _from_attention(view: AttentionView, data_type: attention_pb2.MatrixDataType) -> attention_pb2.Attention:
    return attention_pb2.Attention(
        links=[
            attention_pb2.AlignmentLink(source_word=link.source_word, target_word=link.target_word, weight=link.weight)
            for link in view.links
        ],
        alignment_source=_from_alignment(view.alignment),
        matrices=[_from_matrix(matrix, data_type) for matrix in view.matrices],
        measures=_from_measures(view.measures),
    )


def _from_alignment(alignment: AlignmentEntry) -> attention_pb2.AlignmentSource:
    return attention_pb2.AlignmentSource(
        map=alignment.map, heads=alignment.heads, shift=alignment.shift, chosen_by=alignment.chosen_by
    )


def _from_matrix(matrix: MatrixView, data_type: attention_pb2.MatrixDataType) -> attention_pb2.AttentionMatrix:
    weights = matrix.weights
    if data_type == attention_pb2.MATRIX_DATA_TYPE_UINT8:
        weights = _to_bytes(weights)
    return attention_pb2.AttentionMatrix(
        map=matrix.map.name,
        kind=_KINDS[matrix.map.kind],
        layer=matrix.map.layer,
        heads=matrix.heads,
        score_function=matrix.map.score_function,
        scope_tokens=matrix.map.scope_tokens,
        unit=_unit_of(matrix),
        tokens_per_unit=1 if matrix.of_words else matrix.map.tokens_per_unit,
        shape=weights.shape,
        data_type=data_type,
        data=np.ascontiguousarray(weights, dtype=_DATA_TYPES[data_type]).tobytes(),
        rows_sum_to_one=matrix.map.rows_sum_to_one,
        includes_end_of_sentence=matrix.map.includes_end_of_sentence,
    )


def _to_bytes(weights: Floats) -> Floats:
    """Whole numbers of 255ths, those of a row with the row's own sum: what is cut off goes to the greatest remainders.

    Rounded one by one, a row of 200 small weights would lose a tenth of its sum.
    """
    scaled = weights * 255
    whole = np.floor(scaled)
    missing = np.rint(scaled.sum(axis=-1, keepdims=True)) - whole.sum(axis=-1, keepdims=True)
    order = np.argsort(whole - scaled, axis=-1, kind="stable").argsort(axis=-1, kind="stable")
    filled: Floats = np.minimum(whole + (order < missing), 255)
    return filled


def _unit_of(matrix: MatrixView) -> attention_pb2.AttentionUnit:
    return attention_pb2.ATTENTION_UNIT_WORD if matrix.of_words else _unit_of_map(matrix.map)


def _unit_of_map(entry: AttentionMapEntry) -> attention_pb2.AttentionUnit:
    if entry.kind == "context_sentence":
        return attention_pb2.ATTENTION_UNIT_SENTENCE
    return attention_pb2.ATTENTION_UNIT_BLOCK if entry.tokens_per_unit > 1 else attention_pb2.ATTENTION_UNIT_TOKEN


def _from_measures(measures: Measures) -> attention_pb2.AttentionMeasures:
    return attention_pb2.AttentionMeasures(
        mean_token_log_probability=measures.mean_token_log_probability,
        normalized_entropy=measures.normalized_entropy.tolist(),
        coverage=measures.coverage.tolist(),
        coverage_deviation_penalty=measures.coverage_deviation_penalty,
        absentmindedness_out=measures.absentmindedness_out,
        absentmindedness_in=measures.absentmindedness_in,
        attention_focus=measures.attention_focus,
        end_of_sentence_mass=measures.end_of_sentence_mass,
        punctuation_mass=measures.punctuation_mass,
        unaligned_source_ratio=measures.unaligned_source_ratio,
    )


# --- models ----------------------------------------------------------------------------------------------------------


def from_model(model: ServedModel, answering: str | None) -> model_pb2.Model:
    manifest = model.bundle.manifest
    return model_pb2.Model(
        name=manifest.name,
        version=manifest.version,
        state=model_pb2.MODEL_STATE_READY,
        description=manifest.description,
        source_language_codes=manifest.source_languages,
        target_language_codes=manifest.target_languages,
        license=manifest.license,
        attribution=manifest.attribution,
        capabilities=_from_capabilities(manifest),
        limits=model_pb2.ModelLimits(
            max_source_tokens=manifest.limits.max_source_tokens,
            max_target_tokens=manifest.limits.max_target_tokens,
            max_context_sentences=manifest.context_sentences,
        ),
        attention_maps=[_from_map(entry) for entry in manifest.attention_maps],
        alignment_source=None if manifest.alignment is None else _from_alignment(manifest.alignment),
        execution_provider=model.engine.execution_provider,
        scores=manifest.provenance.scores,
        is_default=manifest.name == answering,
        splits_sentences=manifest.splits_sentences,
        reads_plainly=manifest.reads_plainly,
        keeps_literals=manifest.keeps_literals,
        finds_omissions=manifest.finds_omissions,
        read_back_by=manifest.read_back_by or "",
        default_beam_size=manifest.decoding.beam_size,
        default_length_penalty=manifest.decoding.length_penalty,
        precision=model.engine.precision,
    )


def from_refused(model: RefusedModel, error: HeedError) -> model_pb2.Model:
    return model_pb2.Model(
        name=model.name, version=model.version, state=model_pb2.MODEL_STATE_REFUSED, status=to_status(error)
    )


def _from_capabilities(manifest: Manifest) -> model_pb2.ModelCapabilities:
    capabilities = manifest.capabilities
    return model_pb2.ModelCapabilities(
        generation=_GENERATIONS[capabilities.generation],
        scoring=capabilities.scoring,
        prefix=capabilities.prefix,
        beam=capabilities.beam,
        streaming=capabilities.streaming,
        document_context=capabilities.document_context,
    )


def _from_map(entry: AttentionMapEntry) -> model_pb2.AttentionMap:
    return model_pb2.AttentionMap(
        name=entry.name,
        kind=_KINDS[entry.kind],
        layer=entry.layer,
        heads=entry.heads,
        scope_tokens=entry.scope_tokens,
        score_function=entry.score_function,
        rows_sum_to_one=entry.rows_sum_to_one,
        includes_end_of_sentence=entry.includes_end_of_sentence,
        tokens_per_unit=entry.tokens_per_unit,
        unit=_unit_of_map(entry),
    )
