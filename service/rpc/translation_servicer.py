"""``heed.v1.TranslationService``: converts and delegates. Raw bytes in and out, so that every error is one of ours."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
from google.protobuf.message import Message
from heed.v1 import attention_pb2, translation_service_pb2

from service.errors import (
    DeadlineExceededError,
    HeedError,
    InternalError,
    InvalidFieldError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from service.metrics import Metrics
from service.registry import ModelRegistry, RefusedModel
from service.rpc import converters
from service.rpc.interceptors import cancellation
from service.rpc.parsing import parse
from service.rpc.status import message_of, status_code, trailers
from service.translator import TranslateResult, Translator

SERVICE_NAME = translation_service_pb2.DESCRIPTOR.services_by_name["TranslationService"].full_name
MAX_SEND_BYTES = 32 * 1024 * 1024
Context = grpc.aio.ServicerContext[bytes, bytes]
M = TypeVar("M", bound=Message)
_Reply = translation_service_pb2.TranslateResponse | translation_service_pb2.ScoreResponse
_log = logging.getLogger(__name__)


class TranslationServicer:
    """Answers UNAVAILABLE until ``serve`` is called with what has been loaded."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._registry: ModelRegistry | None = None
        self._translator: Translator | None = None

    def serve(self, registry: ModelRegistry, translator: Translator) -> None:
        self._registry, self._translator = registry, translator

    async def wait_until_idle(self, timeout_seconds: float) -> bool:
        """True when no call is under way any more, False when the time came first."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_seconds)
        except TimeoutError:
            return False
        return True

    def handler(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        """For ``server.add_generic_rpc_handlers``; no serializers: gRPC hands bytes through."""
        service = translation_service_pb2
        behaviors = {
            "Translate": self._guarded(service.TranslateRequest, self._translate),
            "Score": self._guarded(service.ScoreRequest, self._score),
            "ListModels": self._guarded(service.ListModelsRequest, self._list_models),
            "GetModel": self._guarded(service.GetModelRequest, self._get_model),
        }
        return grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {name: grpc.unary_unary_rpc_method_handler(behavior) for name, behavior in behaviors.items()},
        )

    # --- methods ------------------------------------------------------------------------------------------------------

    async def _translate(self, message: translation_service_pb2.TranslateRequest, context: Context) -> Message:
        data_type = converters.to_data_type(message.attention)
        result = await self._ready().translate(converters.to_request(message, _deadline(context)))
        reply = translation_service_pb2.TranslateResponse(model=result.model, version=result.version, seed=result.seed)
        await self._fill(reply, result, message, data_type)
        return reply

    async def _score(self, message: translation_service_pb2.ScoreRequest, context: Context) -> Message:
        data_type = converters.to_data_type(message.attention)
        result = await self._ready().translate(converters.to_score_request(message, _deadline(context)))
        reply = translation_service_pb2.ScoreResponse(model=result.model, version=result.version)
        await self._fill(reply, result, message, data_type)
        return reply

    async def _fill(
        self,
        reply: _Reply,
        result: TranslateResult,
        message: translation_service_pb2.TranslateRequest | translation_service_pb2.ScoreRequest,
        data_type: attention_pb2.MatrixDataType,
    ) -> None:
        for outcome in result.outcomes:
            with self._metrics.phase_seconds.labels("serialize").time():
                reply.translations.append(converters.from_outcome(outcome, data_type))
            if message.HasField("attention"):
                await asyncio.sleep(0)  # a matrix takes its time: others have their turn
        if message.HasField("attention"):
            self._count_attention(message.attention.view, reply)

    def _count_attention(self, view: attention_pb2.AttentionView, reply: _Reply) -> None:
        name = attention_pb2.AttentionView.Name(view).removeprefix("ATTENTION_VIEW_").lower()
        packed = sum(
            len(matrix.data)
            for whole in reply.translations
            for translation in [whole, *(sentence.translation for sentence in whole.sentences)]
            for hypothesis in translation.hypotheses
            for matrix in hypothesis.attention.matrices
        )
        self._metrics.attention_requests.labels(name).inc()
        self._metrics.attention_bytes.labels(name).inc(packed)

    async def _list_models(self, message: translation_service_pb2.ListModelsRequest, context: Context) -> Message:
        del message, context
        registry = self._loaded()
        ready = [converters.from_model(model, registry.answering) for model in registry.ready]
        refused = [converters.from_refused(model, _refusal(model)) for model in registry.refused]
        return translation_service_pb2.ListModelsResponse(models=[*ready, *refused])

    async def _get_model(self, message: translation_service_pb2.GetModelRequest, context: Context) -> Message:
        del context
        registry = self._loaded()
        if not message.model:
            raise InvalidFieldError("model", "empty; ListModels names the models")
        version = message.version if message.HasField("version") else None
        for model in registry.ready:
            if model.name == message.model and version in (None, model.version):
                found = converters.from_model(model, registry.answering)
                return translation_service_pb2.GetModelResponse(model=found)
        for refused in registry.refused:
            if refused.name == message.model and version in (None, refused.version):
                found = converters.from_refused(refused, _refusal(refused))
                return translation_service_pb2.GetModelResponse(model=found)
        name = message.model if version is None else f"{message.model}/{version}"
        kind = "model" if version is None else "version"
        raise NotFoundError(kind, name, f"no {kind} {name!r}: ListModels names what there is")

    def _ready(self) -> Translator:
        if self._translator is None:
            raise _loading()
        return self._translator

    def _loaded(self) -> ModelRegistry:
        if self._registry is None:
            raise _loading()
        return self._registry

    # --- around every method ------------------------------------------------------------------------------------------

    def _guarded(
        self, request_type: type[M], method: Callable[[M, Context], Awaitable[Message]]
    ) -> Callable[[bytes, Context], Awaitable[bytes]]:
        """Parse, answer, serialise; every error becomes a status with details, an unforeseen one an id for the log."""

        async def behavior(data: bytes, context: Context) -> bytes:
            self._under_way += 1
            self._idle.clear()
            try:
                return await answer(data, context)
            finally:
                self._under_way -= 1
                if not self._under_way:
                    self._idle.set()

        async def answer(data: bytes, context: Context) -> bytes:
            try:
                reply = (await method(parse(request_type, data), context)).SerializeToString()
                if len(reply) > MAX_SEND_BYTES:
                    raise InvalidFieldError(
                        "attention",
                        f"the reply would have {len(reply)} bytes; {MAX_SEND_BYTES} are allowed: send fewer texts, ask "
                        "for fewer maps, or for UINT8",
                        "REPLY_TOO_LARGE",
                    )
                return reply
            except HeedError as error:
                failure = error
            except asyncio.CancelledError:
                # Cancelled by the client or by its deadline: the futures are cancelled with us. gRPC wants it raised.
                self._metrics.failures.labels(cancellation(context)).inc()
                raise
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            except BaseException:  # a panic of a library in Rust is no Exception; without an answer the caller waits
                failure = InternalError(uuid.uuid4().hex)
                _log.exception("request %s", failure.metadata["request_id"])
            self._metrics.failures.labels(failure.reason).inc()
            await context.abort(status_code(failure), message_of(failure), trailers(failure))
            raise DeadlineExceededError  # abort has raised already; this tells the type checker

        return behavior


def _deadline(context: Context) -> float | None:
    """The caller's, as a time of ``time.monotonic``; None for none."""
    remaining = context.time_remaining()
    return None if remaining is None else time.monotonic() + remaining


def _loading() -> UnavailableError:
    return UnavailableError("LOADING", "the server is loading its models", retry_seconds=1.0)


def _refusal(model: RefusedModel) -> UnsupportedError:
    return UnsupportedError("BUNDLE_REFUSED", model.error, model=model.name, version=str(model.version))
