"""Which words a good translation need not look at: measured on translations by people, not assumed.

The service doubts words that no target token looks at (``service.coverage``). Articles, auxiliaries, the second half of
"train station" are looked at by none in most translations that are right; to doubt them would be noise. A model says
itself which they are, on the pairs that it was trained on. Called by the export.
"""

from __future__ import annotations

from collections import Counter

from service.attention.views import aligned
from service.attention.words import words_of
from service.bundle.manifest import AlignmentEntry
from service.coverage import hardly_looked_at, plain_form
from training.alignment import attention_of
from training.corpus import Corpus
from training.models.interface import AutoregressiveModel

PAIRS = 8000
_LEAST = 3  # sentences
_SHARE = 0.05  # of them


def unaligned_words(
    model: AutoregressiveModel, corpus: Corpus, alignment: AlignmentEntry, pairs: int = PAIRS
) -> tuple[str, ...]:
    """Words in lower case, in order, that the alignment hardly looks at in one of twenty of their sentences or more.

    Judged on ``pairs`` training pairs, evenly taken, with their targets given, each once however often it is repeated.
    What hardly occurs in them is rare, and tells something.
    """
    texts, count = corpus.training_texts(), len(corpus.arrays("training"))
    seen, passed_over = Counter[str](), Counter[str]()
    taken = min(pairs, count)
    for example in dict.fromkeys(texts[count * number // taken] for number in range(taken)):
        source, target = corpus.encode(example)
        attention = attention_of(model, source.ids, target.ids)[alignment.map]
        weights = aligned(attention, alignment)[:-1]  # the last row is of `</s>`
        words = words_of(source.text, source.tokens)
        seen.update({plain_form(word.text) for word in words})
        passed_over.update({plain_form(word.text) for _, word in hardly_looked_at(weights, words)})
    return tuple(sorted(word for word, times in passed_over.items() if times >= max(_LEAST, _SHARE * seen[word])))
