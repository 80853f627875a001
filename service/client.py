"""The Python client: one channel with retries, health checks and a default deadline.

    with Client("127.0.0.1:50051") as client:
        reply = client.translate(["Guten Morgen!"], attention=ATTENTION_VIEW_WORD)

Needs nothing of the engine: grpc, protobuf and numpy only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from heed.v1 import attention_pb2, model_pb2, translation_pb2, translation_service_pb2
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_TIMEOUT_SECONDS = 30.0
_SERVICE = {"service": "heed.v1.TranslationService"}
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "heed.v1.TranslationService"},
    "methodConfig": [
        {
            "name": [_SERVICE],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}
_OPTIONS = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.max_receive_message_length", 32 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 120_000),
)
_SPLITTINGS = {
    None: translation_service_pb2.SENTENCE_SPLITTING_UNSPECIFIED,
    False: translation_service_pb2.SENTENCE_SPLITTING_NONE,
    True: translation_service_pb2.SENTENCE_SPLITTING_SENTENCES,
}
_DATA_TYPES = {
    attention_pb2.MATRIX_DATA_TYPE_FLOAT32: "<f4",
    attention_pb2.MATRIX_DATA_TYPE_FLOAT16: "<f2",
    attention_pb2.MATRIX_DATA_TYPE_UINT8: "u1",
}


class Client:
    """Calls raise ``grpc.RpcError``; ``grpc_status.rpc_status.from_call`` reads its details."""

    def __init__(self, address: str = DEFAULT_ADDRESS, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self._channel = grpc.insecure_channel(address, options=[*_OPTIONS, *_without_proxy(address)])
        self._stub = TranslationServiceStub(self._channel)
        self.timeout_seconds = timeout_seconds

    def translate(
        self,
        texts: Sequence[str],
        model: str = "",
        source_language: str = "",
        target_language: str = "",
        attention: attention_pb2.AttentionView | None = None,
        contexts: Sequence[Sequence[str]] = (),
        maps: Sequence[str] = (),
        split_sentences: bool | None = None,
        decoding: translation_pb2.DecodingOptions | None = None,
        target_prefixes: Sequence[str] = (),
        priority: translation_service_pb2.Priority = translation_service_pb2.PRIORITY_UNSPECIFIED,
    ) -> translation_service_pb2.TranslateResponse:
        """Translate texts; look at each translation's ``status``, for one may fail and the others not.

        ``contexts``, for a model of documents: the sentences before each text, one sequence for each. ``maps``: the
        attention maps to return, by name; none takes those of the view. ``split_sentences``: whether each text is cut
        into sentences that are translated by themselves; None leaves it to the model. ``decoding``: how to search.
        ``target_prefixes``: what each translation begins with, "" for nothing. ``priority``: where calls wait.
        """
        request = translation_service_pb2.TranslateRequest(
            model=model,
            source_language_code=source_language,
            target_language_code=target_language,
            contents=texts,
            contexts=[translation_service_pb2.DocumentContext(source_sentences=before) for before in contexts],
            sentence_splitting=_SPLITTINGS[split_sentences],
            decoding=decoding,
            target_prefixes=target_prefixes,
            priority=priority,
        )
        if attention is not None:
            request.attention.view = attention
            request.attention.maps.extend(maps)
        reply: translation_service_pb2.TranslateResponse = self._stub.Translate(request, timeout=self.timeout_seconds)
        return reply

    def score(
        self,
        pairs: Sequence[tuple[str, str]],
        model: str = "",
        source_language: str = "",
        target_language: str = "",
        attention: attention_pb2.AttentionView | None = None,
    ) -> translation_service_pb2.ScoreResponse:
        """Judge translations that are given, (source, target) each: log-probabilities, and what the model looks at."""
        request = translation_service_pb2.ScoreRequest(
            model=model,
            source_language_code=source_language,
            target_language_code=target_language,
            pairs=[translation_service_pb2.ScorePair(source=source, target=target) for source, target in pairs],
        )
        if attention is not None:
            request.attention.view = attention
        reply: translation_service_pb2.ScoreResponse = self._stub.Score(request, timeout=self.timeout_seconds)
        return reply

    def list_models(self) -> list[model_pb2.Model]:
        reply = self._stub.ListModels(translation_service_pb2.ListModelsRequest(), timeout=self.timeout_seconds)
        return list(reply.models)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _without_proxy(address: str) -> list[tuple[str, int]]:
    """No proxy leads to the machine itself, whatever the environment names."""
    host = address.rpartition(":")[0].strip("[]")
    return [("grpc.enable_http_proxy", 0)] if host in ("localhost", "::1") or host.startswith("127.") else []


def reason_of(error: grpc.RpcError) -> str:
    """The ``ErrorInfo.reason`` of a call that failed; "" where the server gave none."""
    status = rpc_status.from_call(error) if isinstance(error, grpc.Call) else None
    info = error_details_pb2.ErrorInfo()
    details: list[Any] = [] if status is None else list(status.details)
    for detail in details:
        if detail.Unpack(info):
            return str(info.reason)
    return ""


def unpack(matrix: attention_pb2.AttentionMatrix) -> npt.NDArray[np.float32]:
    """The weights of a packed matrix: (heads, rows, columns) float32."""
    values = np.frombuffer(matrix.data, dtype=_DATA_TYPES[matrix.data_type]).reshape(matrix.shape)
    scale = 255.0 if matrix.data_type == attention_pb2.MATRIX_DATA_TYPE_UINT8 else 1.0
    return (values / scale).astype(np.float32)
