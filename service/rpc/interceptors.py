"""Counting every call, of every service and shape, in the metrics that public gRPC dashboards know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from service.metrics import Metrics

_KINDS = {
    (False, False): "unary",
    (False, True): "server_stream",
    (True, False): "client_stream",
    (True, True): "bidi_stream",
}
_CLOCKS_DIFFER_SECONDS = 0.1
_MAKERS: dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class MetricsInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not subscriptable at run time
    """Only methods that a service really has are counted, so labels stay a closed set."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        shape = (bool(handler.request_streaming), bool(handler.response_streaming))
        behavior = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        _, service, method = handler_call_details.method.split("/")
        labels = (_KINDS[shape], service, method)
        wrap = self._streaming if shape[1] else self._single
        return _MAKERS[shape](
            wrap(behavior, shape[0], labels), handler.request_deserializer, handler.response_serializer
        )

    def _single(self, behavior: Any, request_streaming: bool, labels: tuple[str, str, str]) -> Any:
        async def counted(request: Any, context: Any) -> Any:
            call = _Call(self._metrics, labels)
            try:
                reply = await behavior(call.counting(request) if request_streaming else call.received(request), context)
                call.sent()
                return reply
            except BaseException as error:
                call.failed(error)
                raise
            finally:
                call.ended(context)

        return counted

    def _streaming(self, behavior: Any, request_streaming: bool, labels: tuple[str, str, str]) -> Any:
        async def counted(request: Any, context: Any) -> Any:
            call = _Call(self._metrics, labels)
            try:
                incoming = call.counting(request) if request_streaming else call.received(request)
                replies = behavior(incoming, _CountingContext(context, call))
                if hasattr(replies, "__aiter__"):
                    async for reply in replies:
                        call.sent()
                        yield reply
                else:  # a coroutine that writes to the context itself
                    await replies
            except BaseException as error:
                call.failed(error)
                raise
            finally:
                call.ended(context)

        return counted


def cancellation(context: Any) -> str:
    """Why gRPC cancelled a handler, which it does not tell: CANCELLED, or DEADLINE_EXCEEDED, known by the time left.

    The client counts from when it sent, we from when we read: its word of a passed deadline comes before our clock's,
    by as much as a busy machine is late. A client that cancels so shortly before its deadline is counted as late too.
    """
    remaining = context.time_remaining()
    return "DEADLINE_EXCEEDED" if remaining is not None and remaining <= _CLOCKS_DIFFER_SECONDS else "CANCELLED"


class _CountingContext:
    """A call's context that counts what is written to it, as health's ``Watch`` does."""

    def __init__(self, context: Any, call: _Call) -> None:
        self._context, self._call = context, call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, reply: Any) -> None:
        await self._context.write(reply)
        self._call.sent()


class _Call:
    """The counters of one call."""

    def __init__(self, metrics: Metrics, labels: tuple[str, str, str]) -> None:
        self._metrics = metrics
        self._labels = labels
        self._begun = time.perf_counter()
        self._error: BaseException | None = None
        metrics.rpc_started.labels(*labels).inc()

    def received(self, request: Any) -> Any:
        self._metrics.rpc_received.labels(*self._labels).inc()
        return request

    async def counting(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            yield self.received(request)

    def sent(self) -> None:
        self._metrics.rpc_sent.labels(*self._labels).inc()

    def failed(self, error: BaseException) -> None:
        self._error = error

    def ended(self, context: Any) -> None:
        self._metrics.rpc_handled.labels(*self._labels, self._code(context)).inc()
        self._metrics.rpc_seconds.labels(*self._labels).observe(time.perf_counter() - self._begun)

    def _code(self, context: Any) -> str:
        if isinstance(self._error, (asyncio.CancelledError, GeneratorExit)):
            return cancellation(context)
        found = context.code()
        number = found.value[0] if isinstance(found, grpc.StatusCode) else int(found or 0)
        if number == 0 and self._error is not None:
            return "UNKNOWN"
        return next(code.name for code in grpc.StatusCode if code.value[0] == number)
