"""Which weights of a trained model are its alignment: measured against what the task knows, not assumed.

A Transformer has a cross map in every layer and several heads in each, and which of them says where a word comes from
differs from model to model; "the last layer, mean of heads" is often wrong. Weights are read when a token is output, or
one step later, when it is input (shift 1). Called by the export.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from service.attention.views import aligned
from service.bundle.manifest import AlignmentEntry
from service.bundle.tokenizer import BOS_ID, Token
from training.corpus import Corpus
from training.models.interface import AutoregressiveModel
from training.tasks import Example, Task

SENTENCES = 500
_LEAST_JUDGED = 20
_WORD = re.compile(r"\w+")


def measure_alignment(model: AutoregressiveModel, corpus: Corpus, task: Task | None) -> AlignmentEntry | None:
    """The cross map, heads and shift whose greatest weights most often lie where they should.

    Where that is says the task; of text without one, the words that both sides have once, such as names and numbers.
    Judged on the corpus's first 500 validation sentences with their targets given. Returns the model's own alignment
    where there is but one map of one head to choose from, or where too few tokens say anything.
    """
    offered = list(candidates(model))
    if len(offered) < 2:
        return model.alignment
    hits: list[list[bool]] = [[] for _ in offered]
    for example in itertools.islice(corpus.examples("validation"), SENTENCES):
        source, target = corpus.encode(example)
        spans = [(token.begin, token.end) for token in source.tokens]
        attention = attention_of(model, source.ids, target.ids)
        for found, candidate in zip(hits, offered, strict=True):
            weights = aligned(attention[candidate.map], candidate)[:-1]  # the last row is of `</s>`
            looked_at = [spans[int(place)] for place in weights.argmax(axis=-1)]
            found += task.attention_hits(example, looked_at) if task else copied_hits(example, target.tokens, looked_at)
    if task is None and len(hits[0]) < _LEAST_JUDGED:
        return model.alignment
    shares = [sum(found) / max(1, len(found)) for found in hits]
    best = int(np.argmax(shares))  # the first of equals: means before heads, shift 0 before 1
    judge = "the task's own alignment" if task else "words that both sides have"
    chosen_by = f"agreement with {judge}, {shares[best]:.1%} of {len(hits[best])} validation tokens"
    return offered[best].model_copy(update={"chosen_by": chosen_by})


def copied_hits(example: Example, target: Sequence[Token], looked_at: Sequence[tuple[int, int]]) -> list[bool]:
    """For each target token of a word that stands once on both sides: did it look at that word in the source?

    ``looked_at`` has, for each target token, the span (begin, end) in the source text of greatest weight.
    """
    places = {side: _places_once(text) for side, text in (("source", example.source), ("target", example.target))}
    hits = []
    for word in places["source"].keys() & places["target"].keys():
        (begin, end), (wanted_begin, wanted_end) = places["target"][word], places["source"][word]
        hits += [
            seen_begin < wanted_end and seen_end > wanted_begin
            for token, (seen_begin, seen_end) in zip(target, looked_at, strict=False)
            if not token.special and token.begin < end and token.end > begin
        ]
    return hits


def _places_once(text: str) -> dict[str, tuple[int, int]]:
    """Where each word is that stands but once in the text."""
    found: dict[str, list[tuple[int, int]]] = {}
    for match in _WORD.finditer(text):
        found.setdefault(match.group(), []).append(match.span())
    return {word: spans[0] for word, spans in found.items() if len(spans) == 1}


def candidates(model: AutoregressiveModel) -> Iterator[AlignmentEntry]:
    """Of every cross map the mean of its heads and each head, read at either step."""
    cross = [entry for entry in model.attention_maps if entry.kind == "cross"]
    if sum(entry.heads for entry in cross) < 2:
        return
    for entry in cross:
        singles = [(head,) for head in range(entry.heads)] if entry.heads > 1 else []
        for heads in (tuple(range(entry.heads)), *singles):
            yield AlignmentEntry(map=entry.name, heads=heads, shift=0, chosen_by="")
            yield AlignmentEntry(map=entry.name, heads=heads, shift=1, chosen_by="")


def attention_of(
    model: AutoregressiveModel, source: list[int], target: list[int]
) -> dict[str, npt.NDArray[np.float32]]:
    """The cross maps of one sentence and its target: (target_length, heads, source_length)."""
    with torch.no_grad():
        lengths = torch.tensor([len(source)], dtype=torch.int32)
        decoded = model(torch.tensor([source]), lengths, torch.tensor([[BOS_ID, *target[:-1]]]))
    return {name: weights[0].transpose(0, 1).numpy() for name, weights in decoded.attention.items()}
