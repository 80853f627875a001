"""How near translations are to people's: BLEU and chrF by sacreBLEU with their signatures, and exact match.

Of all sentences and by the length of the source; against every translation that the test set has of a source.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from training.tasks import Example

BUCKETS = ((1, 5), (6, 10), (11, 20), (21, 10_000))  # words of the source, both ends included


@dataclass(frozen=True)
class TextScores:
    """BLEU and chrF from 0 to 100; ``exact_match`` is the share that equals one of the references."""

    sentences: int
    bleu: float
    chrf: float
    exact_match: float
    bleu_signature: str
    chrf_signature: str


def with_references(examples: Iterable[Example]) -> dict[str, list[str]]:
    """Each source once, in the order of its first pair, with all its targets."""
    references: dict[str, list[str]] = {}
    for example in examples:
        references.setdefault(example.source, []).append(example.target)
    return references


def score_texts(translations: Sequence[str], references: Sequence[Sequence[str]], lower_case: bool) -> TextScores:
    """``references``: one or more for each translation. Raises ValueError where there is nothing to score."""
    if not translations or len(translations) != len(references):
        raise ValueError(f"{len(translations)} translations, references for {len(references)}")
    most = max(len(texts) for texts in references)
    # sacreBLEU takes one list for each rank of reference; None stands where a sentence has fewer.
    ranks = [[texts[rank] if rank < len(texts) else None for texts in references] for rank in range(most)]
    bleu, chrf = BLEU(lowercase=lower_case), CHRF(lowercase=lower_case)
    found = list(translations)
    of_bleu, of_chrf = bleu.corpus_score(found, ranks), chrf.corpus_score(found, ranks)  # type: ignore[arg-type]
    exact = sum(text in texts for text, texts in zip(translations, references, strict=True))
    return TextScores(
        sentences=len(translations),
        bleu=float(of_bleu.score),
        chrf=float(of_chrf.score),
        exact_match=exact / len(translations),
        bleu_signature=str(bleu.get_signature()),
        chrf_signature=str(chrf.get_signature()),
    )


def score_by_length(
    translations: Sequence[str], references: dict[str, list[str]], lower_case: bool
) -> dict[str, TextScores]:
    """Of "all", and of the sources of each of ``BUCKETS`` that has any."""
    rows = list(zip(translations, references.items(), strict=True))
    parts = {"all": rows}
    for low, high in BUCKETS:
        name = f"{low}-{high} words" if high < BUCKETS[-1][1] else f"{low} words and more"
        parts[name] = [row for row in rows if low <= len(row[1][0].split()) <= high]
    return {
        name: score_texts([text for text, _ in part], [texts for _, (_, texts) in part], lower_case)
        for name, part in parts.items()
        if part
    }
