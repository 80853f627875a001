"""How good a model is on held-out pairs: teacher-forced measures of all of them, BLEU and chrF of some translations."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import sacrebleu
import torch

from service.bundle.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer
from service.engine.search import NEVER_CHOSEN
from training.batches import Batch, make_batch, plan_epoch
from training.corpus import Corpus, ParallelArrays
from training.models.interface import NOT_JUDGED, AutoregressiveModel, OneShotModel, TranslationModel
from training.objective import cross_entropy
from training.selection import Validation

_LONGEST = 2.0  # target tokens for each source token, and a few, before a greedy translation is cut


@dataclass(frozen=True)
class Sample:
    """One validation sentence as the model translates it."""

    source: str
    reference: str
    translation: str


def validate(model: TranslationModel, arrays: ParallelArrays, batch_tokens: int) -> Validation:
    """Loss, accuracy and exact match over a whole corpus, teacher-forced, on the model's own device."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    loss, tokens, right_tokens, exact = 0.0, 0, 0, 0
    with torch.no_grad():
        for sentences in plan_epoch(arrays, batch_tokens, seed=0, epoch=0):
            batch = make_batch(arrays, sentences).to(device)
            wanted = model.judged_targets(batch.target_ids)
            judged = wanted != NOT_JUDGED
            logits = model.judged_logits(batch.inputs, judged)
            loss += cross_entropy(logits, wanted[judged], smoothing=0.0).item()
            tokens += int(judged.sum())
            right = torch.ones_like(judged)
            right[judged] = logits.argmax(-1) == wanted[judged]
            right_tokens += int((right & judged).sum())
            exact += int(right.all(dim=1).sum())
    model.train(was_training)
    return Validation(loss / tokens, right_tokens / tokens, exact / len(arrays))


def translate_validation(
    model: TranslationModel, corpus: Corpus, arrays: ParallelArrays, sentences: int, batch_tokens: int
) -> list[Sample]:
    """Greedy translations of the first ``sentences`` validation sentences."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    tokenizer = corpus.tokenizer("target")
    count = min(sentences, len(arrays))
    examples = list(itertools.islice(corpus.examples("validation"), count))
    translations = [""] * count
    first = arrays.first(count)
    for numbers in plan_epoch(first, batch_tokens, seed=0, epoch=0):
        found = translate_batch(model, make_batch(first, numbers).to(device))
        for number, ids in zip(numbers, found, strict=True):
            translations[int(number)] = _text(tokenizer, ids)
    model.train(was_training)
    return [Sample(example.source, example.target, text) for example, text in zip(examples, translations, strict=True)]


def score(samples: list[Sample]) -> tuple[float, float]:
    """BLEU and chrF by sacreBLEU with its defaults (13a, case kept; chrF2), 0 to 100."""
    translations, references = [sample.translation for sample in samples], [[sample.reference for sample in samples]]
    bleu = sacrebleu.corpus_bleu(translations, references, force=True)
    return float(bleu.score), float(sacrebleu.corpus_chrf(translations, references).score)


def translate_batch(model: TranslationModel, batch: Batch) -> list[list[int]]:
    """Greedy search, or the one pass, without `</s>` and padding."""
    with torch.no_grad():
        if isinstance(model, OneShotModel):
            padded = torch.nn.functional.pad(
                batch.source_ids, (0, model.length - batch.source_ids.shape[1]), value=PAD_ID
            )
            rows = model.translate(padded).logits.argmax(-1).tolist()
            return [[token for token in row if token not in (PAD_ID, EOS_ID)] for row in rows]
        if isinstance(model, AutoregressiveModel):
            return [row[: row.index(EOS_ID)] if EOS_ID in row else row for row in _greedy(model, batch)]
    raise TypeError(f"{type(model).__name__} is of no kind that translates")


def _greedy(model: AutoregressiveModel, batch: Batch) -> list[list[int]]:
    memory, state, _ = model.encode(batch.source_ids, batch.source_lengths, batch.context)
    rows, longest = len(batch.source_ids), int(_LONGEST * int(batch.source_lengths.max())) + 10
    longest = min(longest, model.max_target_tokens or longest)
    tokens = torch.full((rows, 1), BOS_ID, device=batch.source_ids.device)
    ended = torch.zeros(rows, dtype=torch.bool, device=tokens.device)
    chosen = []
    for place in range(longest):
        positions = torch.full((rows,), place, device=tokens.device)
        step = model.decode_step(tokens, positions, batch.source_lengths, memory, state)
        logits = step.logits.index_fill(1, torch.tensor(NEVER_CHOSEN, device=tokens.device), -torch.inf)
        tokens, state = logits.argmax(-1, keepdim=True), step.state
        chosen.append(tokens)
        ended |= tokens[:, 0] == EOS_ID
        if bool(ended.all()):
            break
    found: list[list[int]] = torch.cat(chosen, 1).tolist()
    return found


def _text(tokenizer: Tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids).text
