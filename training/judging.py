"""What each sentence pair costs a model that is there already: text that it knows is left out of its next training.

A model of few weights is fitted on a CPU to a few hundred pairs a minute, and most of what it reads it writes already;
the pairs that cost it the most have the words that it lacks. Chosen once, before the training, as in Katharopoulos and
Fleuret 2018, https://arxiv.org/abs/1803.00942, section 3, but without their weights, because every pair of the text
that is judged is as true as any other. Called by ``training.corpus`` while it reads the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from service.bundle.errors import BundleError
from service.bundle.reading import plain_marks, with_spaced_marks
from service.bundle.repository import load_bundle
from service.bundle.tokenizer import BOS_ID, PAD_ID
from training.config import ModelConfig
from training.errors import CheckpointError, CorpusError
from training.models import build
from training.models.interface import NOT_JUDGED, Inputs
from training.models.precision import cpu_computes_bfloat16
from training.start import load_stored
from training.tasks import Example

_MODEL: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)
_BATCH_TOKENS = 8192  # of both sides, padded


class _Pair(NamedTuple):
    source: Tensor
    target: Tensor

    @property
    def tokens(self) -> int:
        return len(self.source) + len(self.target)


class Judge:
    """A bundle's model, in bfloat16 where the processor computes it, as the judge of sentence pairs."""

    def __init__(self, path: Path, languages: tuple[str, str] | None) -> None:
        """``languages``: source and target of the pairs. Raises CorpusError where ``path`` is no whole bundle, is of
        other languages, or does not tell how its model was made."""
        try:
            self._bundle = load_bundle(path)
            manifest = self._bundle.manifest
            settings = _MODEL.validate_python(manifest.provenance.config.get("model"))
        except BundleError as error:
            raise CorpusError(f"corpus.judge: {error}") from error
        except ValidationError as error:
            raise CorpusError(f"corpus.judge: {path} does not tell its model's settings: name another") from error
        reads, writes = manifest.source_languages, manifest.target_languages
        if languages is None or (tuple(reads), tuple(writes)) != ((languages[0],), (languages[1],)):
            wanted = "several languages" if languages is None else " to ".join(languages)
            raise CorpusError(f"corpus.judge: {path} is of {reads} to {writes}, and the text of {wanted}: name another")
        vocabularies = (self._bundle.source_tokenizer, self._bundle.target_tokenizer)
        self._model = build(settings, *(tokenizer.vocabulary_size for tokenizer in vocabularies)).eval()
        stored = load_file(self._bundle.path(self._bundle.manifest.weights))
        try:
            load_stored(self._model, stored, f"corpus.judge: {path}")
        except CheckpointError as error:
            raise CorpusError(str(error)) from error

    def costs(self, pairs: Sequence[Example]) -> npt.NDArray[np.float64]:
        """Of each pair the cross-entropy of its target, in nats a token: (pairs,)."""
        read = [self._read(pair) for pair in pairs]
        order = sorted(range(len(read)), key=lambda place: (read[place].tokens, place))
        costs = np.empty(len(read))
        begin = 0
        while begin < len(order):  # the last of a batch is its longest
            end = begin + 1
            while end < len(order) and (end + 1 - begin) * read[order[end]].tokens <= _BATCH_TOKENS:
                end += 1
            places = order[begin:end]
            costs[places] = self._costs([read[place] for place in places])
            begin = end
        return costs

    def _read(self, pair: Example) -> _Pair:
        source, target = pair.source, pair.target
        if self._bundle.manifest.reads_plainly:
            source, target = with_spaced_marks(source), plain_marks(target)
        ids = (self._bundle.source_tokenizer.encode_ids(source), self._bundle.target_tokenizer.encode_ids(target))
        return _Pair(*map(torch.tensor, ids))

    @torch.no_grad()
    def _costs(self, pairs: Sequence[_Pair]) -> npt.NDArray[np.float64]:
        sources, targets = [pair.source for pair in pairs], [pair.target for pair in pairs]
        source_ids = pad_sequence(sources, batch_first=True, padding_value=PAD_ID)
        target_ids = pad_sequence(targets, batch_first=True, padding_value=PAD_ID)
        inputs = torch.cat([torch.full_like(target_ids[:, :1], BOS_ID), target_ids[:, :-1]], dim=1)
        lengths = torch.tensor([len(source) for source in sources], dtype=torch.int32)
        wanted = self._model.judged_targets(target_ids)
        judged = wanted != NOT_JUDGED
        with torch.autocast("cpu", torch.bfloat16, enabled=cpu_computes_bfloat16()):
            logits = self._model.judged_logits(Inputs(source_ids, lengths, inputs, None), judged)
        of_tokens = torch.zeros(judged.shape)
        of_tokens[judged] = functional.cross_entropy(logits.float(), wanted[judged], reduction="none")
        return np.asarray(of_tokens.sum(1) / judged.sum(1), dtype=np.float64)
