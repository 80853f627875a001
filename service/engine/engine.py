"""Translating sentences of one model: worker threads, each with a running batch that sentences join and leave.

A one-shot model has nothing to join: its workers take what waits, run one pass, and are done with it.

Token ids in, token ids and attention out. Knows no text, no wire and no model family. The translator submits; the
answer comes by a future.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import numpy as np

from service.bundle.manifest import AttentionVariant, MapKind, Precision
from service.bundle.tokenizer import EOS_ID, PAD_ID
from service.engine.characters import NO_BYTES, Ids
from service.engine.cores import available_cores
from service.engine.errors import DeadlineError, EngineError, RuntimeFailureError, StoppedError
from service.engine.hypothesis import FinishReason, Floats, Hypothesis
from service.engine.observer import Observer, SilentObserver
from service.engine.onnx_model import Array, EncodeOutput, OneShotOnnxModel, OnnxModel, StepOutput
from service.engine.running_batch import RunningBatch
from service.engine.scheduler import Load, Scheduler
from service.engine.search import StepRows, choose_greedily, choose_in_one_pass
from service.engine.sentence import Sentence, SentenceRequest, SentenceResult, Timings

_log = logging.getLogger(__name__)
_ENCODE_TOKENS = 4096  # padded source tokens that are encoded together at most


@dataclass(frozen=True)
class EngineSettings:
    """``workers`` 0: one for each core; ``queue_tokens`` bounds the source and target tokens waiting and running."""

    workers: int = 0
    threads_per_worker: int = 1
    rows_per_worker: int = 64
    queue_tokens: int = 200_000

    @property
    def worker_count(self) -> int:
        return self.workers or available_cores()


class Engine:
    """One model's workers. ``submit`` from any thread; ``stop`` once, at the end."""

    def __init__(
        self,
        model: OnnxModel | OneShotOnnxModel,
        settings: EngineSettings | None = None,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        settings = settings or EngineSettings()
        self._model = model
        self._byte_tokens = NO_BYTES if isinstance(model, OneShotOnnxModel) else model.byte_tokens
        self._observer = observer or SilentObserver()
        self._clock = clock
        self._rows = settings.rows_per_worker
        self._scheduler = Scheduler(settings.queue_tokens, settings.worker_count, clock)
        work = (
            partial(self._work_in_one_pass, model)
            if isinstance(model, OneShotOnnxModel)
            else partial(self._work, model)
        )
        self._threads = [
            threading.Thread(target=work, name=f"heed-worker-{i}", daemon=True) for i in range(settings.worker_count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def execution_provider(self) -> str:
        return self._model.execution_provider

    @property
    def precision(self) -> Precision:
        """In which numbers the model's graphs multiply."""
        return self._model.precision

    @property
    def rows(self) -> int:
        """Hypotheses that a worker decodes together, at most: a sentence cannot have more."""
        return self._rows

    @property
    def attention_maps(self) -> frozenset[str]:
        """The names of the maps that can be asked for."""
        return self._model.attention_maps

    def submit(self, requests: Sequence[SentenceRequest]) -> list[Future[SentenceResult]]:
        """Queue sentences, all or none; each future gives a SentenceResult or an EngineError, and may be cancelled.

        Raises QueueFullError or StoppedError; ValueError for a sentence of more hypotheses than a worker decodes.
        """
        if (widest := max((request.decoding.rows for request in requests), default=0)) > self._rows:
            raise ValueError(f"a sentence has {widest} hypotheses; a worker decodes {self._rows}")
        now = self._clock()
        sentences = [Sentence(request, Future(), now, self._byte_tokens) for request in requests]
        self._scheduler.submit(sentences)
        return [sentence.future for sentence in sentences]

    def translate(self, requests: Sequence[SentenceRequest]) -> list[SentenceResult]:
        """Submit and wait: for evaluation and warm-up."""
        return [future.result() for future in self.submit(requests)]

    def load(self) -> Load:
        return self._scheduler.load()

    def stop(self, grace_seconds: float = 0.0) -> bool:
        """Take no more work, wait for what is held, end the workers. False when some of it had to be given up."""
        self._scheduler.close()
        finished = self._scheduler.wait_until_empty(grace_seconds)
        for sentence in self._scheduler.stop():
            self._fail(sentence, StoppedError("the engine has stopped"), "stopped")
        for thread in self._threads:
            thread.join()
        return finished

    # --- a worker -----------------------------------------------------------------------------------------------------

    def _work(self, model: OnnxModel) -> None:
        batch = self._new_batch(model)
        while True:
            joiners, ended = self._scheduler.take(batch.sentences, batch.free_rows)
            for sentence in ended:
                self._drop(sentence)
            if self._scheduler.stopping:
                self._abandon([*batch.sentences, *joiners])
                return
            self._join(model, batch, joiners)
            self._drop_ended(batch)
            if len(batch):
                batch = self._step(model, batch)

    def _new_batch(self, model: OnnxModel) -> RunningBatch:
        return RunningBatch(self._rows, model.growing_axes)

    def _join(self, model: OnnxModel, batch: RunningBatch, joiners: list[Sentence]) -> None:
        """Encode newcomers, those of like length together, and add them to the batch."""
        for group in _encode_groups(joiners, model.context_sentences):
            started = self._clock()
            try:
                feeds = _padded(group, sentences=model.context_sentences)
                encoded = model.encode(feeds, _widest_wish(group))
                batch.join(group, encoded)
            except Exception as error:  # whatever it is, the worker lives on and the sentences get an answer
                self._retry_alone(group, error)
                continue
            now = self._clock()
            for row, sentence in enumerate(group):
                sentence.started, sentence.encoded = started, now
                sentence.encoder_attention = _encoder_attention(sentence, row, encoded)
            self._observer.encoded(len(group), *_count_tokens(feeds), now - started)

    def _step(self, model: OnnxModel, batch: RunningBatch) -> RunningBatch:
        """One token for every hypothesis; sentences whose search has ended leave. Returns the batch to go on with."""
        started = self._clock()
        sentences = batch.sentences
        try:
            output = model.decode_step(batch.feeds(), _widest_wish(sentences))
            tokens, log_probabilities = choose_greedily(output.logits)
            if self._byte_tokens:
                _keep_characters_whole(sentences, output.logits, tokens, log_probabilities)
            batch.advance(tokens, output)
        except Exception as error:  # as above
            self._retry_alone(sentences, error)
            return self._new_batch(model)
        self._observer.stepped(len(batch), self._clock() - started)
        greedy = list(zip(tokens.tolist(), log_probabilities.tolist(), strict=True))
        parents: dict[Sentence, list[int]] = {}
        failed: dict[Sentence, Exception] = {}
        for sentence in sentences:
            search, rows = sentence.search, sentence.rows
            try:
                if search.is_plain:
                    token, log_probability = greedy[rows[0]]
                    wanted = sentence.request.attention != "none"
                    search.take(token, log_probability, (output.attention, rows[0]) if wanted else None)
                else:
                    parents[sentence] = search.advance(_rows_of(model, sentence, output))
            except Exception as error:  # as above; the others have nothing to do with it
                failed[sentence] = error
        over = [sentence for sentence in sentences if sentence in failed or not sentence.search.live]
        try:
            spare: list[int] = []
            for sentence, gone_on_from in parents.items():
                chosen = [node.token for node in sentence.search.live]
                spare += batch.go_on(sentence, gone_on_from, chosen, output)
            batch.settle(spare)
            for sentence in over:
                batch.leave(sentence)
        except Exception as error:  # as above
            self._retry_alone(sentences, error)
            return self._new_batch(model)
        for sentence in over:
            self._scheduler.release(sentence)
            if sentence in failed:
                self._fail_by(sentence, failed[sentence])
                continue
            try:
                hypotheses = _hypotheses_of(sentence, model.map_kinds)
            except Exception as error:  # as above
                self._fail_by(sentence, error)
            else:
                self._finish(sentence, hypotheses)
        return batch

    def _work_in_one_pass(self, model: OneShotOnnxModel) -> None:
        while True:
            taken, ended = self._scheduler.take([], self._rows)
            for sentence in ended:
                self._drop(sentence)
            if self._scheduler.stopping:
                self._abandon(taken)
                return
            for group in _encode_groups(taken):
                self._translate_at_once(model, group)

    def _translate_at_once(self, model: OneShotOnnxModel, sentences: list[Sentence]) -> None:
        started = self._clock()
        ended = [sentence for sentence in sentences if sentence.cancelled or sentence.expired(started)]
        for sentence in ended:
            self._scheduler.release(sentence)
            self._drop(sentence)
        if not (group := [sentence for sentence in sentences if sentence not in ended]):
            return
        try:
            feeds = _padded(group, model.length)
            output = model.translate(feeds["source_ids"], feeds["source_lengths"], _widest_wish(group))
            rows = [choose_in_one_pass(logits) for logits in output.logits]
        except Exception as error:  # as above
            self._retry_alone(group, error)
            return
        self._observer.passed(len(group), *_count_tokens(feeds), self._clock() - started)
        for row, (sentence, (tokens, log_probabilities)) in enumerate(zip(group, rows, strict=True)):
            sentence.started = sentence.encoded = started
            self._scheduler.release(sentence)
            if not np.isfinite(log_probabilities).all():
                self._fail(sentence, RuntimeFailureError("the model gave a logit that is no number"), "failed")
                continue
            wanted = sentence.request.attention != "none"
            maps = {name: weights[row].swapaxes(0, 1).copy() for name, weights in output.attention.items() if wanted}
            ids = tokens.tolist()
            reason = FinishReason.END_OF_SENTENCE if EOS_ID in ids else FinishReason.LENGTH
            score = float(log_probabilities.sum())
            self._finish(sentence, (Hypothesis(tuple(ids), log_probabilities, maps, reason, score),))

    def _drop_ended(self, batch: RunningBatch) -> None:
        """Cancelled and expired rows leave before the next step."""
        now = self._clock()
        for sentence in batch.sentences:
            if sentence.cancelled or sentence.expired(now):
                batch.leave(sentence)
                self._scheduler.release(sentence)
                self._drop(sentence)

    def _retry_alone(self, sentences: list[Sentence], error: Exception) -> None:
        """One bad sentence must not fail its neighbours: each is run again by itself; one that was alone has failed."""
        if len(sentences) == 1 and sentences[0].alone:
            self._scheduler.release(sentences[0])
            self._fail_by(sentences[0], error)
            return
        _log.warning("failed on a batch of %d; running each alone: %s", len(sentences), error)
        for sentence in sentences:
            sentence.alone = True
            sentence.restart()
        if not self._scheduler.requeue(sentences):
            self._abandon(sentences)

    def _abandon(self, sentences: list[Sentence]) -> None:
        for sentence in sentences:
            self._scheduler.release(sentence)
            self._fail(sentence, StoppedError("the engine has stopped"), "stopped")

    # --- endings ------------------------------------------------------------------------------------------------------

    def _finish(self, sentence: Sentence, hypotheses: tuple[Hypothesis, ...]) -> None:
        timings = Timings(
            queue=sentence.started - sentence.submitted,
            encode=sentence.encoded - sentence.started,
            decode=self._clock() - sentence.encoded,
        )
        for hypothesis in hypotheses:
            self._observer.finished(hypothesis.finish_reason, len(hypothesis.target_ids))
        sentence.forget()
        if sentence.future.set_running_or_notify_cancel():
            sentence.future.set_result(SentenceResult(hypotheses, timings))

    def _drop(self, sentence: Sentence) -> None:
        if sentence.cancelled:
            self._observer.dropped("cancelled", sentence.steps)
            sentence.forget()
            sentence.future.set_running_or_notify_cancel()
        else:
            reason = "spare" if sentence.request.spare else "deadline"
            self._fail(sentence, DeadlineError("the deadline has passed"), reason)

    def _fail_by(self, sentence: Sentence, error: Exception) -> None:
        """What the runtime or the search of this sentence raised."""
        known = isinstance(error, EngineError)
        _log.error("failed on a sentence alone: %s", error, exc_info=None if known else error)
        failure = error if isinstance(error, EngineError) else RuntimeFailureError(repr(error))
        self._fail(sentence, failure, "failed")

    def _fail(self, sentence: Sentence, error: EngineError, reason: str) -> None:
        self._observer.dropped(reason, sentence.steps)
        sentence.forget()
        if sentence.future.set_running_or_notify_cancel():
            sentence.future.set_exception(error)


def _encode_groups(sentences: list[Sentence], context_sentences: int = 0) -> list[list[Sentence]]:
    """Cut newcomers into groups of like length, each of a bounded number of padded tokens."""
    groups: list[list[Sentence]] = []
    widest = (0, 0)
    for sentence in sorted(sentences, key=lambda sentence: sentence.request.source_tokens):
        request = sentence.request
        context = max(map(len, request.context_ids), default=0)
        widest = (max(widest[0], len(request.source_ids)), max(widest[1], context))
        row = widest[0] + context_sentences * widest[1]
        if groups and (len(groups[-1]) + 1) * row <= _ENCODE_TOKENS:
            groups[-1].append(sentence)
        else:
            groups.append([sentence])
            widest = (len(request.source_ids), context)
    return groups


def _padded(group: list[Sentence], length: int | None = None, sentences: int = 0) -> dict[str, Array]:
    """source_ids (batch, longest, or ``length``), source_lengths (batch,), and where the model reads so many
    ``sentences`` before each, context_ids (batch, sentences, longest), context_lengths (batch, sentences)."""
    source_ids, source_lengths = _padded_rows([sentence.request.source_ids for sentence in group], length)
    feeds = {"source_ids": source_ids, "source_lengths": source_lengths}
    if sentences:
        nothing: tuple[tuple[int, ...], ...] = ((),) * sentences
        rows = [row for sentence in group for row in (sentence.request.context_ids + nothing)[:sentences]]
        ids, lengths = _padded_rows(rows)
        feeds["context_ids"] = ids.reshape(len(group), sentences, -1)
        feeds["context_lengths"] = lengths.reshape(len(group), sentences)
    return feeds


def _padded_rows(rows: Sequence[Sequence[int]], length: int | None = None) -> tuple[Array, Array]:
    lengths = np.array([len(row) for row in rows], dtype=np.int32)
    ids = np.full((len(rows), length or max(1, lengths.max())), PAD_ID, dtype=np.int64)
    for padded, row in zip(ids, rows, strict=True):
        padded[: len(row)] = row
    return ids, lengths


def _count_tokens(feeds: dict[str, Array]) -> tuple[int, int]:
    """Without and with padding."""
    tokens = sum(int(array.sum()) for name, array in feeds.items() if name.endswith("_lengths"))
    return tokens, sum(array.size for name, array in feeds.items() if name.endswith("_ids"))


def _widest_wish(sentences: Iterable[Sentence]) -> AttentionVariant:
    """The least attention that serves every one of them."""
    wishes = {sentence.request.attention for sentence in sentences}
    if "full" in wishes:
        return "full"
    covering = any(sentence.request.decoding.coverage_penalty for sentence in sentences)
    return "alignment" if covering or "alignment" in wishes else "none"


def _keep_characters_whole(
    sentences: Iterable[Sentence], logits: Floats, tokens: Ids, log_probabilities: Floats
) -> None:
    """Choose again, in place, where the likeliest token would break a character."""
    likeliest = tokens.tolist()
    for sentence in sentences:
        row = sentence.rows[0]
        if sentence.search.is_plain and sentence.search.is_out_of_place(likeliest[row]):
            tokens[row], log_probabilities[row] = sentence.search.choose_in_place(logits[row])


def _rows_of(model: OnnxModel, sentence: Sentence, output: StepOutput) -> StepRows:
    """What a step gave for the hypotheses of one sentence."""
    wanted, rows = sentence.request.attention != "none", sentence.rows
    coverage = None
    if sentence.request.decoding.coverage_penalty and (alignment := model.alignment) is not None:
        ids = np.array(sentence.request.source_ids)
        weights = output.attention[alignment.map][rows][:, list(alignment.heads), : len(ids)].mean(axis=1)
        coverage = weights[:, ids != EOS_ID]
    return StepRows(output.logits[rows], rows, output.attention if wanted else None, coverage)


def _hypotheses_of(sentence: Sentence, kinds: Mapping[str, MapKind]) -> tuple[Hypothesis, ...]:
    found = []
    for ended in sentence.search.best():
        path = ended.node.path()
        found.append(
            Hypothesis(
                target_ids=tuple(node.token for node in path),
                log_probabilities=np.array([node.log_probability for node in path], dtype=np.float32),
                attention=_gather_attention(sentence, [node.attention for node in path if node.attention], kinds),
                finish_reason=ended.reason,
                score=ended.score,
            )
        )
    return tuple(found)


def _encoder_attention(sentence: Sentence, row: int, encoded: EncodeOutput) -> dict[str, Floats]:
    """The encoder's own maps of one sentence that asked for every map: (source_length, heads, source_length)."""
    if sentence.request.attention != "full":
        return {}
    length = len(sentence.request.source_ids)
    return {
        name: weights[row, :, :length, :length].swapaxes(0, 1).copy() for name, weights in encoded.attention.items()
    }


def _gather_attention(
    sentence: Sentence, steps: Sequence[tuple[dict[str, Floats], int]], kinds: Mapping[str, MapKind]
) -> dict[str, Floats]:
    """Each map of a finished hypothesis, as ``Hypothesis`` has it: ``steps`` are the batch's maps and its row in them.

    Those that every step gave: a step may have emitted more for the sake of a neighbour.
    """
    names = set.intersection(*(set(maps) for maps, _ in steps)) if steps else set[str]()
    found = {
        name: np.stack([_own_part(maps[name][row], kinds[name], sentence.request, len(steps)) for maps, row in steps])
        for name in sorted(names)
    }
    return sentence.encoder_attention | found


def _own_part(weights: Floats, kind: MapKind, request: SentenceRequest, steps: int) -> Floats:
    """One step's weights (heads, …) without what is padding: (heads, columns)."""
    if kind == "context":
        parts = [weights[:, place, : len(ids)] for place, ids in enumerate(request.context_ids)]
        return np.concatenate([weights[:, 0, :0], *parts], axis=1)
    columns = {"context_sentence": len(request.context_ids), "decoder_self": steps}
    return weights[:, : columns.get(kind, len(request.source_ids))]
