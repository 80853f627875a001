from google.rpc import status_pb2 as _status_pb2
from heed.v1 import attention_pb2 as _attention_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OmissionKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OMISSION_KIND_UNSPECIFIED: _ClassVar[OmissionKind]
    OMISSION_KIND_LITERAL: _ClassVar[OmissionKind]
    OMISSION_KIND_WORD: _ClassVar[OmissionKind]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_END_OF_SENTENCE: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
OMISSION_KIND_UNSPECIFIED: OmissionKind
OMISSION_KIND_LITERAL: OmissionKind
OMISSION_KIND_WORD: OmissionKind
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_END_OF_SENTENCE: FinishReason
FINISH_REASON_LENGTH: FinishReason

class DecodingOptions(_message.Message):
    __slots__ = ("max_output_tokens", "min_output_tokens", "beam_size", "hypotheses", "length_penalty", "coverage_penalty", "sampling", "repetition_penalty", "no_repeat_ngram_size", "suppressed_pieces")
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MIN_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BEAM_SIZE_FIELD_NUMBER: _ClassVar[int]
    HYPOTHESES_FIELD_NUMBER: _ClassVar[int]
    LENGTH_PENALTY_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_PENALTY_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    NO_REPEAT_NGRAM_SIZE_FIELD_NUMBER: _ClassVar[int]
    SUPPRESSED_PIECES_FIELD_NUMBER: _ClassVar[int]
    max_output_tokens: int
    min_output_tokens: int
    beam_size: int
    hypotheses: int
    length_penalty: float
    coverage_penalty: float
    sampling: SamplingOptions
    repetition_penalty: float
    no_repeat_ngram_size: int
    suppressed_pieces: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, max_output_tokens: _Optional[int] = ..., min_output_tokens: _Optional[int] = ..., beam_size: _Optional[int] = ..., hypotheses: _Optional[int] = ..., length_penalty: _Optional[float] = ..., coverage_penalty: _Optional[float] = ..., sampling: _Optional[_Union[SamplingOptions, _Mapping]] = ..., repetition_penalty: _Optional[float] = ..., no_repeat_ngram_size: _Optional[int] = ..., suppressed_pieces: _Optional[_Iterable[str]] = ...) -> None: ...

class SamplingOptions(_message.Message):
    __slots__ = ("temperature", "top_k", "top_p", "seed")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    top_p: float
    seed: int
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., seed: _Optional[int] = ...) -> None: ...

class Translation(_message.Message):
    __slots__ = ("status", "hypotheses", "source_tokens", "source_words", "context_sentences", "sentences", "left_out")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    HYPOTHESES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_WORDS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_SENTENCES_FIELD_NUMBER: _ClassVar[int]
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    status: _status_pb2.Status
    hypotheses: _containers.RepeatedCompositeFieldContainer[Hypothesis]
    source_tokens: _containers.RepeatedCompositeFieldContainer[Token]
    source_words: _containers.RepeatedCompositeFieldContainer[Word]
    context_sentences: _containers.RepeatedCompositeFieldContainer[ContextSentence]
    sentences: _containers.RepeatedCompositeFieldContainer[TranslatedSentence]
    left_out: _containers.RepeatedCompositeFieldContainer[Omission]
    def __init__(self, status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., hypotheses: _Optional[_Iterable[_Union[Hypothesis, _Mapping]]] = ..., source_tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ..., source_words: _Optional[_Iterable[_Union[Word, _Mapping]]] = ..., context_sentences: _Optional[_Iterable[_Union[ContextSentence, _Mapping]]] = ..., sentences: _Optional[_Iterable[_Union[TranslatedSentence, _Mapping]]] = ..., left_out: _Optional[_Iterable[_Union[Omission, _Mapping]]] = ...) -> None: ...

class Omission(_message.Message):
    __slots__ = ("begin_offset", "end_offset", "text", "kind")
    BEGIN_OFFSET_FIELD_NUMBER: _ClassVar[int]
    END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    begin_offset: int
    end_offset: int
    text: str
    kind: OmissionKind
    def __init__(self, begin_offset: _Optional[int] = ..., end_offset: _Optional[int] = ..., text: _Optional[str] = ..., kind: _Optional[_Union[OmissionKind, str]] = ...) -> None: ...

class TranslatedSentence(_message.Message):
    __slots__ = ("begin_offset", "end_offset", "target_begin_offset", "target_end_offset", "translation")
    BEGIN_OFFSET_FIELD_NUMBER: _ClassVar[int]
    END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    TARGET_BEGIN_OFFSET_FIELD_NUMBER: _ClassVar[int]
    TARGET_END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    TRANSLATION_FIELD_NUMBER: _ClassVar[int]
    begin_offset: int
    end_offset: int
    target_begin_offset: int
    target_end_offset: int
    translation: Translation
    def __init__(self, begin_offset: _Optional[int] = ..., end_offset: _Optional[int] = ..., target_begin_offset: _Optional[int] = ..., target_end_offset: _Optional[int] = ..., translation: _Optional[_Union[Translation, _Mapping]] = ...) -> None: ...

class ContextSentence(_message.Message):
    __slots__ = ("text", "tokens", "words")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    text: str
    tokens: _containers.RepeatedCompositeFieldContainer[Token]
    words: _containers.RepeatedCompositeFieldContainer[Word]
    def __init__(self, text: _Optional[str] = ..., tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ..., words: _Optional[_Iterable[_Union[Word, _Mapping]]] = ...) -> None: ...

class Hypothesis(_message.Message):
    __slots__ = ("text", "log_probability", "finish_reason", "tokens", "words", "attention", "score")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    text: str
    log_probability: float
    finish_reason: FinishReason
    tokens: _containers.RepeatedCompositeFieldContainer[Token]
    words: _containers.RepeatedCompositeFieldContainer[Word]
    attention: _attention_pb2.Attention
    score: float
    def __init__(self, text: _Optional[str] = ..., log_probability: _Optional[float] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ..., words: _Optional[_Iterable[_Union[Word, _Mapping]]] = ..., attention: _Optional[_Union[_attention_pb2.Attention, _Mapping]] = ..., score: _Optional[float] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("piece", "id", "begin_offset", "end_offset", "special", "log_probability")
    PIECE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    BEGIN_OFFSET_FIELD_NUMBER: _ClassVar[int]
    END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    piece: str
    id: int
    begin_offset: int
    end_offset: int
    special: bool
    log_probability: float
    def __init__(self, piece: _Optional[str] = ..., id: _Optional[int] = ..., begin_offset: _Optional[int] = ..., end_offset: _Optional[int] = ..., special: _Optional[bool] = ..., log_probability: _Optional[float] = ...) -> None: ...

class Word(_message.Message):
    __slots__ = ("text", "begin_offset", "end_offset", "begin_token", "end_token", "special", "is_piece")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    BEGIN_OFFSET_FIELD_NUMBER: _ClassVar[int]
    END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    BEGIN_TOKEN_FIELD_NUMBER: _ClassVar[int]
    END_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_FIELD_NUMBER: _ClassVar[int]
    IS_PIECE_FIELD_NUMBER: _ClassVar[int]
    text: str
    begin_offset: int
    end_offset: int
    begin_token: int
    end_token: int
    special: bool
    is_piece: bool
    def __init__(self, text: _Optional[str] = ..., begin_offset: _Optional[int] = ..., end_offset: _Optional[int] = ..., begin_token: _Optional[int] = ..., end_token: _Optional[int] = ..., special: _Optional[bool] = ..., is_piece: _Optional[bool] = ...) -> None: ...
