"""The models of a server: loaded, proven by their golden sentences, or refused; and which one a request means.

Loads bundles into engines. Knows no text beyond the golden sentences, and no wire.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.bundle.errors import BundleError
from service.bundle.manifest import Precision
from service.bundle.repository import Bundle, Repository
from service.engine.engine import Engine, EngineSettings
from service.engine.errors import ProviderError
from service.engine.onnx_model import OneShotOnnxModel, OnnxModel, Provider, open_model
from service.engine.scheduler import Load
from service.engine.sentence import SentenceRequest
from service.errors import InvalidFieldError, NotFoundError, UnsupportedError, shown
from service.metrics import Metrics
from service.reading_back import Reader, is_reader_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedModel:
    """A bundle and the engine that runs it."""

    bundle: Bundle
    engine: Engine

    @property
    def name(self) -> str:
        return self.bundle.manifest.name

    @property
    def version(self) -> int:
        return self.bundle.manifest.version


@dataclass(frozen=True)
class RefusedModel:
    """A version that did not load, and why."""

    name: str
    version: int
    error: str


class ModelRegistry:
    """Serves of each model the newest version that loads; every refused one is kept, with its reason."""

    def __init__(
        self,
        repository: Repository,
        metrics: Metrics,
        provider: Provider = "auto",
        engine_settings: EngineSettings | None = None,
        default_model: str | None = None,
        precision: Precision = "fp32",
    ) -> None:
        """Load everything. Raises BundleError when the default model is in the repository under no version."""
        self._metrics = metrics
        self._provider = provider
        self._precision = precision
        self._engine_settings = engine_settings or EngineSettings()
        self._ready: dict[str, ServedModel] = {}
        self._refused: dict[tuple[str, int], RefusedModel] = {}
        versions = repository.versions()
        self.default_model = default_model or repository.settings.default_model
        if self.default_model is not None and self.default_model not in versions:
            raise BundleError(
                f"the default model {self.default_model!r} is not in {repository.root}, "
                f"which has {', '.join(versions) or 'no models'}"
            )
        for name, numbers in versions.items():
            self._load_newest(repository, name, numbers)
        metrics.watch_load(lambda: self.loads())

    def _load_newest(self, repository: Repository, name: str, numbers: Sequence[int]) -> None:
        for number in numbers:
            started = time.monotonic()
            try:
                self._ready[name] = model = self._load(repository.load(name, number))
            except Exception as error:  # one bad bundle, in whatever way, must not stop the others
                known = isinstance(error, (BundleError, ProviderError))  # written for a reader; others may name paths
                reason = str(error) if known else f"it does not load ({type(error).__name__}); the log has the reason"
                _log.error("model refused: %s/%d: %s", name, number, reason, exc_info=None if known else error)
                self._refused[name, number] = RefusedModel(name, number, reason)
                self._metrics.model_load_failures.labels(name, str(number)).inc()
                self._metrics.model_ready.labels(name, str(number)).set(0)
                continue
            seconds = time.monotonic() - started
            provider = model.engine.execution_provider
            self._metrics.model_load_seconds.labels(name, str(number)).set(seconds)
            self._metrics.model_ready.labels(name, str(number)).set(1)
            self._metrics.execution_provider.labels(name, str(number), provider).set(1)
            precision = model.engine.precision
            _log.info("model ready: %s/%d in %s on %s after %.2f s", name, number, precision, provider, seconds)
            return

    def _load(self, bundle: Bundle) -> ServedModel:
        """Open the graphs, start the engine, translate the golden sentences. Raises BundleError, EngineError."""
        manifest = bundle.manifest
        limits = manifest.limits
        cost = limits.max_source_tokens * (1 + manifest.context_sentences) + limits.max_target_tokens
        if cost > self._engine_settings.queue_tokens:
            raise BundleError(
                f"{bundle.label} may need {cost} tokens for one sentence, queue_tokens is "
                f"{self._engine_settings.queue_tokens}: raise it"
            )
        model = open_model(bundle, self._provider, self._engine_settings.threads_per_worker, self._precision)
        _check_golden_sentences(bundle, model, self._engine_settings.threads_per_worker)
        observer = self._metrics.observer(manifest.name, manifest.version)
        return ServedModel(bundle, Engine(model, self._engine_settings, observer))

    @property
    def answering(self) -> str | None:
        """The model that answers where nothing is named: the default, or the only one."""
        only = next(iter(self._ready)) if len(self._ready) == 1 else None
        return self.default_model or only

    @property
    def ready(self) -> list[ServedModel]:
        return list(self._ready.values())

    @property
    def refused(self) -> list[RefusedModel]:
        return list(self._refused.values())

    def loads(self) -> Iterator[tuple[str, int, Load]]:
        for model in self.ready:
            yield model.name, model.version, model.engine.load()

    def resolve(self, name: str, version: int | None, source_language: str, target_language: str) -> ServedModel:
        """The model a request means; it is never another than the one named.

        Raises InvalidFieldError, NotFoundError, or UnsupportedError for a model whose bundle was refused.
        """
        if name:
            model = self._named(name, version)
            if source_language or target_language:
                _check_languages(model, source_language, target_language)
            return model
        if version is not None:
            raise InvalidFieldError("version", "needs a model beside it")
        if source_language or target_language:
            return self._by_languages(source_language, target_language)
        if self.answering is not None:
            return self._named(self.answering, None)
        raise InvalidFieldError("model", f"name one of {', '.join(self._ready)}: this server has no default model")

    def reader_of(self, model: ServedModel) -> Reader | None:
        """The model that reads its translations back; None where none is named, served, or of the right languages."""
        reader = self._ready.get(model.bundle.manifest.read_back_by or "")
        if reader is None or not is_reader_of(reader.bundle, model.bundle):
            return None
        return Reader(reader.bundle, reader.engine)

    def _named(self, name: str, version: int | None) -> ServedModel:
        model = self._ready.get(name)
        if model is not None and version in (None, model.version):
            return model
        for refused in self.refused:
            if refused.name == name and version in (None, refused.version):
                raise UnsupportedError(
                    "BUNDLE_REFUSED",
                    f"the server refused {name}/{refused.version}: {refused.error}",
                    model=name,
                    version=str(refused.version),
                )
        if model is None:
            has = ", ".join(self._ready) or "none"
            raise NotFoundError("model", name, f"no model {shown(name)}; this server has {has}")
        raise NotFoundError(
            "version", f"{name}/{version}", f"no version {version} of {name}; this server has {model.version}"
        )

    def _by_languages(self, source: str, target: str) -> ServedModel:
        if not source or not target:
            missing = "target_language_code" if source else "source_language_code"
            raise InvalidFieldError(missing, "name both languages, or neither")
        for model in self.ready:
            manifest = model.bundle.manifest
            if source in manifest.source_languages and target in manifest.target_languages:
                return model
        pairs = ", ".join(
            f"{'|'.join(model.bundle.manifest.source_languages)} to {'|'.join(model.bundle.manifest.target_languages)}"
            for model in self.ready
        )
        problem = f"no model from {shown(source)} to {shown(target)}; this server has {pairs}"
        raise NotFoundError("language pair", f"{source}-{target}", problem)

    def stop(self, grace_seconds: float) -> bool:
        """End every engine; True when nothing had to be given up."""
        deadline = time.monotonic() + grace_seconds
        finished = [model.engine.stop(max(0.0, deadline - time.monotonic())) for model in self.ready]
        return all(finished)


def _check_languages(model: ServedModel, source: str, target: str) -> None:
    manifest = model.bundle.manifest
    for field, code, known in (
        ("source_language_code", source, manifest.source_languages),
        ("target_language_code", target, manifest.target_languages),
    ):
        if code and code not in known:
            raise NotFoundError(
                "language pair", f"{source}-{target}", f"{field} {code!r}: {model.name} has {', '.join(known)}"
            )


def _check_golden_sentences(bundle: Bundle, model: OnnxModel | OneShotOnnxModel, threads: int) -> None:
    """Translate them on an engine of their own, before anyone else may ask; this also warms the graphs up."""
    engine = Engine(model, EngineSettings(workers=1, threads_per_worker=threads))
    try:
        manifest = bundle.manifest
        sentences = [golden for golden in manifest.golden_sentences if golden.precision == model.precision]
        requests = [
            SentenceRequest(
                tuple(bundle.encode_ids(golden.source, golden.target_language)),
                manifest.limits.max_target_tokens,
                attention="full",
                context_ids=tuple(tuple(bundle.encode_ids(text, golden.target_language)) for text in golden.context),
            )
            for golden in sentences
        ]
        for golden, result in zip(sentences, engine.translate(requests), strict=True):
            found = bundle.decode(result.hypotheses[0].target_ids, bundle.answers_in_capitals(golden.source)).text
            if found != golden.target:
                raise BundleError(
                    f"{bundle.label} translates the golden sentence {golden.source!r} to {found!r} here, its maker had "
                    f"{golden.target!r}: this machine or this onnxruntime computes something else; export it again"
                )
    finally:
        engine.stop()
