"""Every metric of the service, in one registry of its own.

Labels are closed sets: methods, codes, models of the repository, phases, reasons. Never anything that a client sends.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.engine.hypothesis import FinishReason
from service.engine.scheduler import Load

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SHORT = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_RATIO = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_RPC = ("grpc_type", "grpc_service", "grpc_method")


class Metrics:
    """Made once for a server; ``registry`` is what the metrics page shows."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series for each of ours that nobody reads
        self.registry = registry = CollectorRegistry()
        # The names that public gRPC dashboards know.
        self.rpc_started = Counter("grpc_server_started_total", "Calls begun.", _RPC, registry=registry)
        self.rpc_handled = Counter(
            "grpc_server_handled_total", "Calls ended, by status code.", (*_RPC, "grpc_code"), registry=registry
        )
        self.rpc_seconds = Histogram(
            "grpc_server_handling_seconds", "From a call's begin to its end.", _RPC, buckets=_LATENCY, registry=registry
        )
        self.rpc_received = Counter("grpc_server_msg_received_total", "Messages received.", _RPC, registry=registry)
        self.rpc_sent = Counter("grpc_server_msg_sent_total", "Messages sent.", _RPC, registry=registry)

        model = ("model", "version")
        self.sentences = Counter("heed_sentences_total", "Texts accepted for translation.", model, registry=registry)
        self.failures = Counter(
            "heed_failures_total", "Requests and single texts that failed, by reason.", ("reason",), registry=registry
        )
        for reason in ("INTERNAL", "CANCELLED", "DEADLINE_EXCEEDED"):
            self.failures.labels(reason)  # there from the start: increase() never sees a series begin at 1
        self.shed = Counter("heed_shed_total", "Requests refused to protect the rest.", ("cause",), registry=registry)
        self.phase_seconds = Histogram(
            "heed_phase_seconds",
            "Where a text's time goes: tokenize, queue, encode, decode, attention, serialize.",
            ("phase",),
            buckets=_SHORT + _LATENCY[-5:],
            registry=registry,
        )
        self.source_tokens = Counter("heed_source_tokens_total", "Source tokens encoded.", model, registry=registry)
        self.target_tokens = Counter(
            "heed_target_tokens_total", "Target tokens that ended, given ones too.", model, registry=registry
        )
        self.padding_tokens = Counter(
            "heed_encode_padding_tokens_total", "Padding encoded beside source tokens.", model, registry=registry
        )
        self.batch_rows = Histogram(
            "heed_decode_batch_rows",
            "Rows of each decoder step or one-shot pass.",
            model,
            buckets=_ROWS,
            registry=registry,
        )
        self.run_seconds = Histogram(
            "heed_onnxruntime_run_seconds",
            "One encoder call, decoder step or one-shot pass, its buffers and search included.",
            (*model, "graph"),
            buckets=_SHORT,
            registry=registry,
        )
        self.finished = Counter(
            "heed_finished_total", "Hypotheses by what ended them.", (*model, "finish_reason"), registry=registry
        )
        self.dropped = Counter(
            "heed_dropped_sentences_total",
            "Sentences that left the engine unfinished: cancelled, deadline, spare (of second tries), failed, stopped.",
            (*model, "reason"),
            registry=registry,
        )
        self.second_tries = Counter(
            "heed_second_tries_total",
            "Searches again for a sentence: without text, without something of its text, in circles, read back badly.",
            model,
            registry=registry,
        )
        self.left_out = Counter(
            "heed_left_out_total",
            "What translations lack of their text, and say so: emoji, addresses and the like (literal), words.",
            (*model, "kind"),
            registry=registry,
        )
        self.wasted_steps = Counter(
            "heed_wasted_steps_total", "Decoder steps of sentences that were dropped.", model, registry=registry
        )
        self.attention_requests = Counter(
            "heed_attention_requests_total", "Requests for attention, by view.", ("view",), registry=registry
        )
        self.attention_bytes = Counter(
            "heed_attention_bytes_total", "Bytes of packed attention matrices returned.", ("view",), registry=registry
        )
        self.attention_entropy = Histogram(
            "heed_attention_normalized_entropy",
            "Mean normalized entropy of a translation's attention, where it was asked for.",
            model,
            buckets=_RATIO,
            registry=registry,
        )
        self.unaligned_source = Histogram(
            "heed_unaligned_source_ratio",
            "Share of source words that no link reaches, where attention was asked for.",
            model,
            buckets=_RATIO,
            registry=registry,
        )
        self.log_probability = Histogram(
            "heed_mean_token_log_probability",
            "Mean log-probability of a translation's tokens, in nats.",
            model,
            buckets=(-5.0, -2.0, -1.0, -0.5, -0.2, -0.1, -0.05, -0.02, -0.01, 0.0),
            registry=registry,
        )
        self.model_ready = Gauge("heed_model_ready", "1 when the model serves.", model, registry=registry)
        self.model_load_seconds = Gauge(
            "heed_model_load_seconds", "From opening the bundle to serving.", model, registry=registry
        )
        self.model_load_failures = Counter(
            "heed_model_load_failures_total", "Bundles refused.", model, registry=registry
        )
        self.execution_provider = Gauge(
            "heed_execution_provider_info",
            "The onnxruntime execution provider really in use.",
            (*model, "provider"),
            registry=registry,
        )
        self.event_loop_lag = Gauge(
            "heed_event_loop_lag_seconds", "How late the last timer of the event loop was.", registry=registry
        )
        self.draining = Gauge("heed_draining", "1 from SIGTERM to the end.", registry=registry)
        build = Gauge("heed_build_info", "Versions.", ("version", "python", "onnxruntime"), registry=registry)
        build.labels(heed_version(), platform.python_version(), _onnxruntime_version()).set(1)

    def watch_load(self, loads: Callable[[], Iterable[tuple[str, int, Load]]]) -> None:
        """Show the engines' queues as they are at the moment of each scrape."""
        self.registry.register(_LoadCollector(loads))

    def observer(self, model: str, model_version: int) -> EngineMetrics:
        """What one engine reports to."""
        return EngineMetrics(self, model, str(model_version))


class EngineMetrics:
    """``service.engine.observer.Observer`` for one model. Every series exists from the start, at zero."""

    def __init__(self, metrics: Metrics, model: str, model_version: str) -> None:
        labels = (model, model_version)
        self._source_tokens = metrics.source_tokens.labels(*labels)
        self._target_tokens = metrics.target_tokens.labels(*labels)
        self._padding = metrics.padding_tokens.labels(*labels)
        self._rows = metrics.batch_rows.labels(*labels)
        self._encode_seconds = metrics.run_seconds.labels(*labels, "encode")
        self._step_seconds = metrics.run_seconds.labels(*labels, "decode_step")
        self._pass_seconds = metrics.run_seconds.labels(*labels, "one_shot")
        self._finished = {reason: metrics.finished.labels(*labels, reason.value) for reason in FinishReason}
        self._dropped = {
            reason: metrics.dropped.labels(*labels, reason)
            for reason in ("cancelled", "deadline", "spare", "failed", "stopped")
        }
        self._wasted = metrics.wasted_steps.labels(*labels)

    def encoded(self, rows: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        del rows
        self._source_tokens.inc(tokens)
        self._padding.inc(padded_tokens - tokens)
        self._encode_seconds.observe(seconds)

    def stepped(self, rows: int, seconds: float) -> None:
        self._rows.observe(rows)
        self._step_seconds.observe(seconds)

    def passed(self, rows: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        self._source_tokens.inc(tokens)
        self._padding.inc(padded_tokens - tokens)
        self._rows.observe(rows)
        self._pass_seconds.observe(seconds)

    def finished(self, reason: FinishReason, target_tokens: int) -> None:
        self._finished[reason].inc()
        self._target_tokens.inc(target_tokens)

    def dropped(self, reason: str, wasted_steps: int) -> None:
        self._dropped[reason].inc()
        self._wasted.inc(wasted_steps)


class _LoadCollector(Collector):
    def __init__(self, loads: Callable[[], Iterable[tuple[str, int, Load]]]) -> None:
        self._loads = loads

    def collect(self) -> Iterator[Metric]:
        labels = ("model", "version")
        gauges = {
            "waiting": GaugeMetricFamily("heed_requests_waiting", "Sentences in the queue.", labels=labels),
            "running": GaugeMetricFamily("heed_requests_running", "Sentences being decoded.", labels=labels),
            "held_tokens": GaugeMetricFamily("heed_queue_tokens", "Tokens waiting and running.", labels=labels),
            "limit_tokens": GaugeMetricFamily("heed_queue_tokens_limit", "Most tokens admitted.", labels=labels),
            "oldest_wait_seconds": GaugeMetricFamily(
                "heed_queue_oldest_wait_seconds", "How long the first of the queue has waited.", labels=labels
            ),
        }
        for model, model_version, load in self._loads():
            for name, gauge in gauges.items():
                gauge.add_metric([model, str(model_version)], float(getattr(load, name)))
        yield from gauges.values()


def heed_version() -> str:
    try:
        return version("heed")
    except PackageNotFoundError:
        return "unknown"


def _onnxruntime_version() -> str:
    from service.engine.runtime import onnxruntime

    return str(onnxruntime.__version__)
