from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttentionView(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTENTION_VIEW_UNSPECIFIED: _ClassVar[AttentionView]
    ATTENTION_VIEW_ALIGNMENT: _ClassVar[AttentionView]
    ATTENTION_VIEW_WORD: _ClassVar[AttentionView]
    ATTENTION_VIEW_TOKEN: _ClassVar[AttentionView]
    ATTENTION_VIEW_FULL: _ClassVar[AttentionView]

class HeadReduction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEAD_REDUCTION_UNSPECIFIED: _ClassVar[HeadReduction]
    HEAD_REDUCTION_MEAN: _ClassVar[HeadReduction]

class MatrixDataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MATRIX_DATA_TYPE_UNSPECIFIED: _ClassVar[MatrixDataType]
    MATRIX_DATA_TYPE_FLOAT32: _ClassVar[MatrixDataType]
    MATRIX_DATA_TYPE_FLOAT16: _ClassVar[MatrixDataType]
    MATRIX_DATA_TYPE_UINT8: _ClassVar[MatrixDataType]

class AttentionKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTENTION_KIND_UNSPECIFIED: _ClassVar[AttentionKind]
    ATTENTION_KIND_CROSS: _ClassVar[AttentionKind]
    ATTENTION_KIND_ENCODER_SELF: _ClassVar[AttentionKind]
    ATTENTION_KIND_DECODER_SELF: _ClassVar[AttentionKind]
    ATTENTION_KIND_CONTEXT: _ClassVar[AttentionKind]

class AttentionUnit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTENTION_UNIT_UNSPECIFIED: _ClassVar[AttentionUnit]
    ATTENTION_UNIT_TOKEN: _ClassVar[AttentionUnit]
    ATTENTION_UNIT_WORD: _ClassVar[AttentionUnit]
    ATTENTION_UNIT_BLOCK: _ClassVar[AttentionUnit]
    ATTENTION_UNIT_SENTENCE: _ClassVar[AttentionUnit]
ATTENTION_VIEW_UNSPECIFIED: AttentionView
ATTENTION_VIEW_ALIGNMENT: AttentionView
ATTENTION_VIEW_WORD: AttentionView
ATTENTION_VIEW_TOKEN: AttentionView
ATTENTION_VIEW_FULL: AttentionView
HEAD_REDUCTION_UNSPECIFIED: HeadReduction
HEAD_REDUCTION_MEAN: HeadReduction
MATRIX_DATA_TYPE_UNSPECIFIED: MatrixDataType
MATRIX_DATA_TYPE_FLOAT32: MatrixDataType
MATRIX_DATA_TYPE_FLOAT16: MatrixDataType
MATRIX_DATA_TYPE_UINT8: MatrixDataType
ATTENTION_KIND_UNSPECIFIED: AttentionKind
ATTENTION_KIND_CROSS: AttentionKind
ATTENTION_KIND_ENCODER_SELF: AttentionKind
ATTENTION_KIND_DECODER_SELF: AttentionKind
ATTENTION_KIND_CONTEXT: AttentionKind
ATTENTION_UNIT_UNSPECIFIED: AttentionUnit
ATTENTION_UNIT_TOKEN: AttentionUnit
ATTENTION_UNIT_WORD: AttentionUnit
ATTENTION_UNIT_BLOCK: AttentionUnit
ATTENTION_UNIT_SENTENCE: AttentionUnit

class AttentionOptions(_message.Message):
    __slots__ = ("view", "maps", "layers", "heads", "head_reduction", "data_type")
    VIEW_FIELD_NUMBER: _ClassVar[int]
    MAPS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    HEAD_REDUCTION_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    view: AttentionView
    maps: _containers.RepeatedScalarFieldContainer[str]
    layers: _containers.RepeatedScalarFieldContainer[int]
    heads: _containers.RepeatedScalarFieldContainer[int]
    head_reduction: HeadReduction
    data_type: MatrixDataType
    def __init__(self, view: _Optional[_Union[AttentionView, str]] = ..., maps: _Optional[_Iterable[str]] = ..., layers: _Optional[_Iterable[int]] = ..., heads: _Optional[_Iterable[int]] = ..., head_reduction: _Optional[_Union[HeadReduction, str]] = ..., data_type: _Optional[_Union[MatrixDataType, str]] = ...) -> None: ...

class Attention(_message.Message):
    __slots__ = ("links", "alignment_source", "matrices", "measures")
    LINKS_FIELD_NUMBER: _ClassVar[int]
    ALIGNMENT_SOURCE_FIELD_NUMBER: _ClassVar[int]
    MATRICES_FIELD_NUMBER: _ClassVar[int]
    MEASURES_FIELD_NUMBER: _ClassVar[int]
    links: _containers.RepeatedCompositeFieldContainer[AlignmentLink]
    alignment_source: AlignmentSource
    matrices: _containers.RepeatedCompositeFieldContainer[AttentionMatrix]
    measures: AttentionMeasures
    def __init__(self, links: _Optional[_Iterable[_Union[AlignmentLink, _Mapping]]] = ..., alignment_source: _Optional[_Union[AlignmentSource, _Mapping]] = ..., matrices: _Optional[_Iterable[_Union[AttentionMatrix, _Mapping]]] = ..., measures: _Optional[_Union[AttentionMeasures, _Mapping]] = ...) -> None: ...

class AlignmentLink(_message.Message):
    __slots__ = ("source_word", "target_word", "weight")
    SOURCE_WORD_FIELD_NUMBER: _ClassVar[int]
    TARGET_WORD_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    source_word: int
    target_word: int
    weight: float
    def __init__(self, source_word: _Optional[int] = ..., target_word: _Optional[int] = ..., weight: _Optional[float] = ...) -> None: ...

class AlignmentSource(_message.Message):
    __slots__ = ("map", "heads", "shift", "chosen_by")
    MAP_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    SHIFT_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_BY_FIELD_NUMBER: _ClassVar[int]
    map: str
    heads: _containers.RepeatedScalarFieldContainer[int]
    shift: int
    chosen_by: str
    def __init__(self, map: _Optional[str] = ..., heads: _Optional[_Iterable[int]] = ..., shift: _Optional[int] = ..., chosen_by: _Optional[str] = ...) -> None: ...

class AttentionMatrix(_message.Message):
    __slots__ = ("map", "kind", "layer", "heads", "score_function", "scope_tokens", "unit", "shape", "data_type", "data", "rows_sum_to_one", "includes_end_of_sentence", "tokens_per_unit")
    MAP_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FUNCTION_FIELD_NUMBER: _ClassVar[int]
    SCOPE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ROWS_SUM_TO_ONE_FIELD_NUMBER: _ClassVar[int]
    INCLUDES_END_OF_SENTENCE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_UNIT_FIELD_NUMBER: _ClassVar[int]
    map: str
    kind: AttentionKind
    layer: int
    heads: _containers.RepeatedScalarFieldContainer[int]
    score_function: str
    scope_tokens: int
    unit: AttentionUnit
    shape: _containers.RepeatedScalarFieldContainer[int]
    data_type: MatrixDataType
    data: bytes
    rows_sum_to_one: bool
    includes_end_of_sentence: bool
    tokens_per_unit: int
    def __init__(self, map: _Optional[str] = ..., kind: _Optional[_Union[AttentionKind, str]] = ..., layer: _Optional[int] = ..., heads: _Optional[_Iterable[int]] = ..., score_function: _Optional[str] = ..., scope_tokens: _Optional[int] = ..., unit: _Optional[_Union[AttentionUnit, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data_type: _Optional[_Union[MatrixDataType, str]] = ..., data: _Optional[bytes] = ..., rows_sum_to_one: _Optional[bool] = ..., includes_end_of_sentence: _Optional[bool] = ..., tokens_per_unit: _Optional[int] = ...) -> None: ...

class AttentionMeasures(_message.Message):
    __slots__ = ("mean_token_log_probability", "normalized_entropy", "coverage", "coverage_deviation_penalty", "absentmindedness_out", "absentmindedness_in", "attention_focus", "end_of_sentence_mass", "punctuation_mass", "unaligned_source_ratio")
    MEAN_TOKEN_LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    NORMALIZED_ENTROPY_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_DEVIATION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    ABSENTMINDEDNESS_OUT_FIELD_NUMBER: _ClassVar[int]
    ABSENTMINDEDNESS_IN_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FOCUS_FIELD_NUMBER: _ClassVar[int]
    END_OF_SENTENCE_MASS_FIELD_NUMBER: _ClassVar[int]
    PUNCTUATION_MASS_FIELD_NUMBER: _ClassVar[int]
    UNALIGNED_SOURCE_RATIO_FIELD_NUMBER: _ClassVar[int]
    mean_token_log_probability: float
    normalized_entropy: _containers.RepeatedScalarFieldContainer[float]
    coverage: _containers.RepeatedScalarFieldContainer[float]
    coverage_deviation_penalty: float
    absentmindedness_out: float
    absentmindedness_in: float
    attention_focus: float
    end_of_sentence_mass: float
    punctuation_mass: float
    unaligned_source_ratio: float
    def __init__(self, mean_token_log_probability: _Optional[float] = ..., normalized_entropy: _Optional[_Iterable[float]] = ..., coverage: _Optional[_Iterable[float]] = ..., coverage_deviation_penalty: _Optional[float] = ..., absentmindedness_out: _Optional[float] = ..., absentmindedness_in: _Optional[float] = ..., attention_focus: _Optional[float] = ..., end_of_sentence_mass: _Optional[float] = ..., punctuation_mass: _Optional[float] = ..., unaligned_source_ratio: _Optional[float] = ...) -> None: ...
