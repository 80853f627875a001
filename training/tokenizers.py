"""Training a SentencePiece model on one side of a corpus. The reading side is ``service.bundle.tokenizer``."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import sentencepiece

from service.bundle.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID, Tokenizer
from training.config import TokenizerConfig
from training.files import write_atomically


def train_tokenizer(config: TokenizerConfig, corpus: Path, column: int, output: Path) -> Tokenizer:
    """Train on one column of a TSV file and write the model to ``output``.

    Characters keep white space as a symbol of its own and are not normalised, so that a piece is a character of the
    text as it was sent. Every character or word of the text is in the vocabulary (coverage 1.0).
    """
    pieces = _distinct(corpus, column, config.kind)
    model = io.BytesIO()
    characters = config.kind == "char"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(pieces),
        model_writer=model,
        model_type=config.kind,
        vocab_size=1_000_000,  # an upper bound: hard_vocab_limit is off, the text decides
        hard_vocab_limit=False,
        use_all_vocab=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=not characters,
        add_dummy_prefix=not characters,
        pad_id=PAD_ID,
        bos_id=BOS_ID,
        eos_id=EOS_ID,
        unk_id=UNK_ID,
        minloglevel=2,
    )
    write_atomically(output, model.getvalue())
    return Tokenizer.load(output)


def _distinct(corpus: Path, column: int, kind: str) -> list[str]:
    """The distinct characters or words, each once, in a fixed order: frequencies play no part in either kind."""
    found: set[str] = set()
    for text in _column(corpus, column):
        found.update(text if kind == "char" else text.split(" "))
    if kind == "char":
        characters = sorted(found)  # and no sentence of them very long
        return ["".join(characters[i : i + 1000]) for i in range(0, len(characters), 1000)]
    return sorted(found)


_SOURCE, _CONTEXT = 0, 3  # the first column of the sentences before a source


def _column(corpus: Path, column: int) -> Iterator[str]:
    """The texts of one side; the source's with the sentences before it."""
    with corpus.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            columns = line.rstrip("\n").split("\t")
            yield columns[column]
            if column == _SOURCE:
                yield from columns[_CONTEXT:]
