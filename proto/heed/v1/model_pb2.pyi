from google.rpc import status_pb2 as _status_pb2
from heed.v1 import attention_pb2 as _attention_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STATE_UNSPECIFIED: _ClassVar[ModelState]
    MODEL_STATE_READY: _ClassVar[ModelState]
    MODEL_STATE_REFUSED: _ClassVar[ModelState]

class Generation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GENERATION_UNSPECIFIED: _ClassVar[Generation]
    GENERATION_AUTOREGRESSIVE: _ClassVar[Generation]
    GENERATION_ONE_SHOT: _ClassVar[Generation]
MODEL_STATE_UNSPECIFIED: ModelState
MODEL_STATE_READY: ModelState
MODEL_STATE_REFUSED: ModelState
GENERATION_UNSPECIFIED: Generation
GENERATION_AUTOREGRESSIVE: Generation
GENERATION_ONE_SHOT: Generation

class Model(_message.Message):
    __slots__ = ("name", "version", "state", "status", "description", "source_language_codes", "target_language_codes", "license", "attribution", "capabilities", "limits", "attention_maps", "alignment_source", "execution_provider", "scores", "is_default", "splits_sentences", "precision", "reads_plainly", "keeps_literals", "finds_omissions", "read_back_by", "default_beam_size", "default_length_penalty")
    class ScoresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_LANGUAGE_CODES_FIELD_NUMBER: _ClassVar[int]
    TARGET_LANGUAGE_CODES_FIELD_NUMBER: _ClassVar[int]
    LICENSE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_MAPS_FIELD_NUMBER: _ClassVar[int]
    ALIGNMENT_SOURCE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    SPLITS_SENTENCES_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    READS_PLAINLY_FIELD_NUMBER: _ClassVar[int]
    KEEPS_LITERALS_FIELD_NUMBER: _ClassVar[int]
    FINDS_OMISSIONS_FIELD_NUMBER: _ClassVar[int]
    READ_BACK_BY_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_BEAM_SIZE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_LENGTH_PENALTY_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    state: ModelState
    status: _status_pb2.Status
    description: str
    source_language_codes: _containers.RepeatedScalarFieldContainer[str]
    target_language_codes: _containers.RepeatedScalarFieldContainer[str]
    license: str
    attribution: _containers.RepeatedScalarFieldContainer[str]
    capabilities: ModelCapabilities
    limits: ModelLimits
    attention_maps: _containers.RepeatedCompositeFieldContainer[AttentionMap]
    alignment_source: _attention_pb2.AlignmentSource
    execution_provider: str
    scores: _containers.ScalarMap[str, float]
    is_default: bool
    splits_sentences: bool
    precision: str
    reads_plainly: bool
    keeps_literals: bool
    finds_omissions: bool
    read_back_by: str
    default_beam_size: int
    default_length_penalty: float
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., state: _Optional[_Union[ModelState, str]] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., description: _Optional[str] = ..., source_language_codes: _Optional[_Iterable[str]] = ..., target_language_codes: _Optional[_Iterable[str]] = ..., license: _Optional[str] = ..., attribution: _Optional[_Iterable[str]] = ..., capabilities: _Optional[_Union[ModelCapabilities, _Mapping]] = ..., limits: _Optional[_Union[ModelLimits, _Mapping]] = ..., attention_maps: _Optional[_Iterable[_Union[AttentionMap, _Mapping]]] = ..., alignment_source: _Optional[_Union[_attention_pb2.AlignmentSource, _Mapping]] = ..., execution_provider: _Optional[str] = ..., scores: _Optional[_Mapping[str, float]] = ..., is_default: _Optional[bool] = ..., splits_sentences: _Optional[bool] = ..., precision: _Optional[str] = ..., reads_plainly: _Optional[bool] = ..., keeps_literals: _Optional[bool] = ..., finds_omissions: _Optional[bool] = ..., read_back_by: _Optional[str] = ..., default_beam_size: _Optional[int] = ..., default_length_penalty: _Optional[float] = ...) -> None: ...

class ModelCapabilities(_message.Message):
    __slots__ = ("generation", "scoring", "prefix", "beam", "streaming", "document_context")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SCORING_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    BEAM_FIELD_NUMBER: _ClassVar[int]
    STREAMING_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    generation: Generation
    scoring: bool
    prefix: bool
    beam: bool
    streaming: bool
    document_context: bool
    def __init__(self, generation: _Optional[_Union[Generation, str]] = ..., scoring: _Optional[bool] = ..., prefix: _Optional[bool] = ..., beam: _Optional[bool] = ..., streaming: _Optional[bool] = ..., document_context: _Optional[bool] = ...) -> None: ...

class ModelLimits(_message.Message):
    __slots__ = ("max_source_tokens", "max_target_tokens", "max_context_sentences")
    MAX_SOURCE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_TARGET_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_CONTEXT_SENTENCES_FIELD_NUMBER: _ClassVar[int]
    max_source_tokens: int
    max_target_tokens: int
    max_context_sentences: int
    def __init__(self, max_source_tokens: _Optional[int] = ..., max_target_tokens: _Optional[int] = ..., max_context_sentences: _Optional[int] = ...) -> None: ...

class AttentionMap(_message.Message):
    __slots__ = ("name", "kind", "layer", "heads", "scope_tokens", "score_function", "rows_sum_to_one", "includes_end_of_sentence", "tokens_per_unit", "unit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    SCOPE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FUNCTION_FIELD_NUMBER: _ClassVar[int]
    ROWS_SUM_TO_ONE_FIELD_NUMBER: _ClassVar[int]
    INCLUDES_END_OF_SENTENCE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_UNIT_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: _attention_pb2.AttentionKind
    layer: int
    heads: int
    scope_tokens: int
    score_function: str
    rows_sum_to_one: bool
    includes_end_of_sentence: bool
    tokens_per_unit: int
    unit: _attention_pb2.AttentionUnit
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[_attention_pb2.AttentionKind, str]] = ..., layer: _Optional[int] = ..., heads: _Optional[int] = ..., scope_tokens: _Optional[int] = ..., score_function: _Optional[str] = ..., rows_sum_to_one: _Optional[bool] = ..., includes_end_of_sentence: _Optional[bool] = ..., tokens_per_unit: _Optional[int] = ..., unit: _Optional[_Union[_attention_pb2.AttentionUnit, str]] = ...) -> None: ...
