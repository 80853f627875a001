from heed.v1 import attention_pb2 as _attention_pb2
from heed.v1 import model_pb2 as _model_pb2
from heed.v1 import translation_pb2 as _translation_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_LOW: _ClassVar[Priority]
    PRIORITY_NORMAL: _ClassVar[Priority]
    PRIORITY_HIGH: _ClassVar[Priority]

class SentenceSplitting(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SENTENCE_SPLITTING_UNSPECIFIED: _ClassVar[SentenceSplitting]
    SENTENCE_SPLITTING_NONE: _ClassVar[SentenceSplitting]
    SENTENCE_SPLITTING_SENTENCES: _ClassVar[SentenceSplitting]
PRIORITY_UNSPECIFIED: Priority
PRIORITY_LOW: Priority
PRIORITY_NORMAL: Priority
PRIORITY_HIGH: Priority
SENTENCE_SPLITTING_UNSPECIFIED: SentenceSplitting
SENTENCE_SPLITTING_NONE: SentenceSplitting
SENTENCE_SPLITTING_SENTENCES: SentenceSplitting

class TranslateRequest(_message.Message):
    __slots__ = ("model", "version", "source_language_code", "target_language_code", "contents", "mime_type", "contexts", "decoding", "attention", "sentence_splitting", "target_prefixes", "priority")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    TARGET_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    CONTENTS_FIELD_NUMBER: _ClassVar[int]
    MIME_TYPE_FIELD_NUMBER: _ClassVar[int]
    CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    DECODING_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_SPLITTING_FIELD_NUMBER: _ClassVar[int]
    TARGET_PREFIXES_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    source_language_code: str
    target_language_code: str
    contents: _containers.RepeatedScalarFieldContainer[str]
    mime_type: str
    contexts: _containers.RepeatedCompositeFieldContainer[DocumentContext]
    decoding: _translation_pb2.DecodingOptions
    attention: _attention_pb2.AttentionOptions
    sentence_splitting: SentenceSplitting
    target_prefixes: _containers.RepeatedScalarFieldContainer[str]
    priority: Priority
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., source_language_code: _Optional[str] = ..., target_language_code: _Optional[str] = ..., contents: _Optional[_Iterable[str]] = ..., mime_type: _Optional[str] = ..., contexts: _Optional[_Iterable[_Union[DocumentContext, _Mapping]]] = ..., decoding: _Optional[_Union[_translation_pb2.DecodingOptions, _Mapping]] = ..., attention: _Optional[_Union[_attention_pb2.AttentionOptions, _Mapping]] = ..., sentence_splitting: _Optional[_Union[SentenceSplitting, str]] = ..., target_prefixes: _Optional[_Iterable[str]] = ..., priority: _Optional[_Union[Priority, str]] = ...) -> None: ...

class DocumentContext(_message.Message):
    __slots__ = ("source_sentences", "target_sentences")
    SOURCE_SENTENCES_FIELD_NUMBER: _ClassVar[int]
    TARGET_SENTENCES_FIELD_NUMBER: _ClassVar[int]
    source_sentences: _containers.RepeatedScalarFieldContainer[str]
    target_sentences: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, source_sentences: _Optional[_Iterable[str]] = ..., target_sentences: _Optional[_Iterable[str]] = ...) -> None: ...

class TranslateResponse(_message.Message):
    __slots__ = ("translations", "model", "version", "seed")
    TRANSLATIONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    translations: _containers.RepeatedCompositeFieldContainer[_translation_pb2.Translation]
    model: str
    version: int
    seed: int
    def __init__(self, translations: _Optional[_Iterable[_Union[_translation_pb2.Translation, _Mapping]]] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., seed: _Optional[int] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("model", "version", "source_language_code", "target_language_code", "pairs", "contexts", "attention", "priority")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    TARGET_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    source_language_code: str
    target_language_code: str
    pairs: _containers.RepeatedCompositeFieldContainer[ScorePair]
    contexts: _containers.RepeatedCompositeFieldContainer[DocumentContext]
    attention: _attention_pb2.AttentionOptions
    priority: Priority
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., source_language_code: _Optional[str] = ..., target_language_code: _Optional[str] = ..., pairs: _Optional[_Iterable[_Union[ScorePair, _Mapping]]] = ..., contexts: _Optional[_Iterable[_Union[DocumentContext, _Mapping]]] = ..., attention: _Optional[_Union[_attention_pb2.AttentionOptions, _Mapping]] = ..., priority: _Optional[_Union[Priority, str]] = ...) -> None: ...

class ScorePair(_message.Message):
    __slots__ = ("source", "target")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    source: str
    target: str
    def __init__(self, source: _Optional[str] = ..., target: _Optional[str] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("translations", "model", "version")
    TRANSLATIONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    translations: _containers.RepeatedCompositeFieldContainer[_translation_pb2.Translation]
    model: str
    version: int
    def __init__(self, translations: _Optional[_Iterable[_Union[_translation_pb2.Translation, _Mapping]]] = ..., model: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_model_pb2.Model]
    def __init__(self, models: _Optional[_Iterable[_Union[_model_pb2.Model, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _model_pb2.Model
    def __init__(self, model: _Optional[_Union[_model_pb2.Model, _Mapping]] = ...) -> None: ...
