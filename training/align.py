"""The stage ``heed-train align``: which map aligns best by links that people drew, and links of a whole corpus.

What it chooses stands in ``<run>/alignment.json``, which the export reads. Gold alignments are of words between spaces,
one ``source ||| target`` a line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from service.attention.views import aligned
from service.bundle.manifest import AlignmentEntry
from training.aer import Link, alignment_error_rate, read_gold
from training.alignment import attention_of, candidates
from training.batches import make_batch, plan_epoch
from training.config import Config, FileCorpus
from training.corpus import SIDES, Corpus
from training.errors import ConfigError, CorpusError
from training.files import write_atomically
from training.guided_alignment import WordNumbers, word_links
from training.models.interface import AutoregressiveModel
from training.trainer import load_weights

_FILE = "alignment.json"


def choose_alignment(config: Config, corpus: Corpus, text: Path, gold: Path, console: Console) -> AlignmentEntry:
    """Measure every cross map, its heads and their mean, at both steps; keep the one with the least error.

    Raises CorpusError for files that do not fit each other, ConfigError for a model without a cross map.
    """
    model, updates = _load(config, corpus)
    offered = list(candidates(model)) or [entry for entry in [model.alignment] if entry is not None]
    if not offered:
        raise ConfigError("the model attends to nothing: there is no map to choose")
    people, pairs = read_gold(gold), _read_pairs(text)
    if len(people) != len(pairs):
        raise CorpusError(f"{text} has {len(pairs)} lines and {gold} {len(people)}: they are not of one corpus")
    found = _links_of_each(model, corpus, pairs, offered)
    rates = [alignment_error_rate(links, people) for links in found]
    table = Table("map", "heads", "shift", "AER")
    for rate, entry in sorted(zip(rates, offered, strict=True), key=lambda row: row[0]):
        table.add_row(entry.map, ",".join(map(str, entry.heads)), str(entry.shift), f"{100 * rate:.2f} %")
    console.print(table)
    best = int(np.argmin(rates))
    chosen_by = f"AER {100 * rates[best]:.2f} % on {gold.name}, the least of {len(offered)}"
    chosen = offered[best].model_copy(update={"chosen_by": chosen_by})
    state = {"updates": updates, "alignment": chosen.model_dump(mode="json")}
    write_atomically(config.run_directory / _FILE, json.dumps(state, indent=1).encode())
    return chosen


def chosen_alignment(config: Config, updates: list[int]) -> AlignmentEntry | None:
    """What ``choose_alignment`` found for the weights of these updates; None where it was never asked.

    Raises CorpusError where it was asked of other weights.
    """
    path = config.run_directory / _FILE
    if not path.is_file():
        return None
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        chosen, of = AlignmentEntry.model_validate(state["alignment"]), list(state["updates"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise CorpusError(f"{path} is damaged: run `heed-train align CONFIG` again, or delete it") from error
    if of != updates:
        raise CorpusError(f"{path} was measured after update {of}, and the weights are of {updates}: align again")
    return chosen


def write_links(config: Config, corpus: Corpus, output: Path, progress: Callable[[str], None]) -> None:
    """The links of every training pair by the model's alignment, a line each, as guided alignment reads them."""
    model, updates = _load(config, corpus)
    alignment = chosen_alignment(config, updates) or model.alignment
    if alignment is None:
        raise ConfigError("the model attends to nothing: it has no links")
    arrays = corpus.arrays("training")
    source, target = (WordNumbers(corpus.tokenizer_path(side)) for side in SIDES)
    lines = [""] * len(arrays)
    with torch.no_grad():
        for sentences in plan_epoch(arrays, config.training.batch_tokens, seed=0, epoch=0):
            batch = make_batch(arrays, sentences)
            attention = model(*batch.inputs).attention[alignment.map].transpose(1, 2).float().numpy()
            words = zip(source.of(batch.source_ids.numpy()), target.of(batch.target_ids.numpy()), strict=True)
            for pair, weights, sides in zip(sentences, attention, words, strict=True):
                found = word_links(aligned(weights, alignment), *sides)
                lines[int(pair)] = " ".join(f"{one}-{other}" for one, other in found)
    write_atomically(output, "".join(f"{line}\n" for line in lines).encode())
    progress(f"wrote the links of {len(lines)} pairs by {alignment.map}, heads {alignment.heads}: {output}")


def _load(config: Config, corpus: Corpus) -> tuple[AutoregressiveModel, list[int]]:
    corpus.check(config)
    if isinstance(config.corpus, FileCorpus) and config.corpus.target_languages:
        raise ConfigError("a model of several target languages cannot be aligned here: the text does not say which")
    model, updates = load_weights(config, corpus)
    if not isinstance(model, AutoregressiveModel) or not model.capabilities.scoring:
        raise ConfigError(f"a model of the family {config.model.family} cannot be told a target to align")
    return model, updates


def _links_of_each(
    model: AutoregressiveModel, corpus: Corpus, pairs: list[tuple[str, str]], offered: list[AlignmentEntry]
) -> list[list[list[Link]]]:
    """For each candidate the links of each pair."""
    source, target = (corpus.tokenizer(side) for side in SIDES)
    numbers = [WordNumbers(corpus.tokenizer_path(side)) for side in SIDES]
    found: list[list[list[Link]]] = [[] for _ in offered]
    for texts in pairs:
        ids = [list(tokenizer.encode_ids(text)) for tokenizer, text in zip((source, target), texts, strict=True)]
        words = [number.of(np.array(side)) for number, side in zip(numbers, ids, strict=True)]
        attention = attention_of(model, ids[0], ids[1])
        for links, entry in zip(found, offered, strict=True):
            links.append(word_links(aligned(attention[entry.map], entry), words[0], words[1]))
    return found


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"cannot read {path}: {error}") from error
    return list(_split(path, lines))


def _split(path: Path, lines: list[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines, start=1):
        sides = [" ".join(side.split()) for side in line.split("|||")]
        if len(sides) != 2 or not all(sides):
            raise CorpusError(f"{path}:{number}: no pair `source ||| target`")
        yield sides[0], sides[1]
