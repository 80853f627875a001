"""Training a SentencePiece model on one side of a corpus. The reading side is ``service.bundle.tokenizer``."""

from __future__ import annotations

import io
import itertools
import random
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]  # made when it is imported

from service.bundle.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID, Tokenizer
from training.config import TokenizerConfig
from training.errors import CorpusError
from training.files import write_atomically

_SPACE = "▁"


def train_tokenizer(
    config: TokenizerConfig, corpus: Path, columns: Iterable[int], output: Path, control_pieces: Sequence[str] = ()
) -> Tokenizer:
    """Train on columns of a TSV file and write the model to ``output``; no text is ever cut into ``control_pieces``.

    Characters and words: every one of the text is in the vocabulary (coverage 1.0), and nothing is normalised;
    characters keep white space as a symbol of its own, so that a piece is a character of the text as it was sent.
    Learned pieces (unigram, BPE): SentencePiece's own training and its ``nmt_nfkc``; characters that are too rare for a
    piece fall back to bytes. Raises CorpusError when there is too little text for the vocabulary.
    """
    texts = itertools.chain.from_iterable(_column(corpus, column) for column in columns)
    options = _learned(config) if config.vocabulary_size is not None else _whole(config.kind)
    learned = config.vocabulary_size is not None
    sentences = _sample(texts, config.training_sentences) if learned else _distinct(texts, config.kind)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type=config.kind,
            pad_id=PAD_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            unk_id=UNK_ID,
            control_symbols=list(control_pieces),
            minloglevel=2,
            **options,
        )
    except RuntimeError as error:  # its message ends in what is wrong
        reason = " ".join(str(error).split())
        raise CorpusError(f"SentencePiece cannot train {config.kind} pieces on {corpus}: {reason}") from error
    write_atomically(output, model.getvalue())
    return Tokenizer.load(output)


def with_symbols_as_bytes(model: bytes) -> bytes:
    """A SentencePiece model that cuts emoji and other symbols into bytes; the numbers of its pieces stay as they were.

    A vocabulary has a piece of each that its text had often enough, hundreds of them, each too rare to be told from
    the others. Their bytes are common, and copied one by one.
    """
    proto = ModelProto()
    proto.ParseFromString(model)
    for piece in proto.pieces:
        if piece.type == piece.NORMAL and any(map(_is_symbol, piece.piece)):
            piece.type = piece.UNUSED
    return bytes(proto.SerializeToString())


def _is_symbol(character: str) -> bool:
    """An emoji, an arrow, a heart; not a degree sign, as old as Latin-1, nor SentencePiece's sign for a space."""
    return character >= "\u2190" and character != _SPACE and unicodedata.category(character) in ("So", "Sk", "Sm")


def _whole(kind: str) -> dict[str, Any]:
    characters = kind == "char"
    return {
        "vocab_size": 1_000_000,  # an upper bound: hard_vocab_limit is off, the text decides
        "hard_vocab_limit": False,
        "use_all_vocab": True,
        "character_coverage": 1.0,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": not characters,
        "add_dummy_prefix": not characters,
    }


def _learned(config: TokenizerConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocabulary_size,
        "input_sentence_size": config.training_sentences,
        "shuffle_input_sentence": True,
        "character_coverage": 0.9999,
        "normalization_rule_name": "nmt_nfkc",
        "byte_fallback": True,
        "num_threads": 2,
    }


def _sample(texts: Iterable[str], count: int) -> list[str]:
    """All, or as many of them, the same in every process: SentencePiece's own choice is not, whatever its seed."""
    generator, sample = random.Random(1), list[str]()
    for number, text in enumerate(texts):
        if number < count:
            sample.append(text)
        elif (place := generator.randrange(number + 1)) < count:
            sample[place] = text
    return sample


def _distinct(texts: Iterable[str], kind: str) -> list[str]:
    """The distinct characters or words, each once, in a fixed order: frequencies play no part in either kind."""
    found: set[str] = set()
    for text in texts:
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
