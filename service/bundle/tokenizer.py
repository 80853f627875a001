"""Text to token ids and back, with the place of every token in the text as it was sent.

Wraps SentencePiece, the one tokenizer of every bundle. Knows nothing of models. Called by the translator and by
training, so that both cut a text alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from service.bundle.errors import BundleError

# One numbering in every bundle: the engine pads with PAD_ID, starts a target with BOS_ID and stops at EOS_ID.
PAD_ID, BOS_ID, EOS_ID, UNK_ID = 0, 1, 2, 3
EOS_PIECE = "</s>"
_SPECIAL_PIECES = {PAD_ID: "<pad>", EOS_ID: EOS_PIECE}
_SPACE = "▁"


@dataclass(frozen=True)
class Token:
    """One token of a text.

    ``begin`` and ``end`` count Unicode code points of the text, without the white space before the token. A special
    token has no characters: both are the end of the token before it.
    """

    id: int
    piece: str
    begin: int
    end: int
    special: bool = False


@dataclass(frozen=True)
class TokenizedText:
    """A text and its tokens, `</s>` last."""

    text: str
    tokens: tuple[Token, ...]

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    def padded(self, length: int) -> TokenizedText:
        """The same with `<pad>` behind, up to ``length`` tokens: what a model of a fixed length reads."""
        pad = _special(PAD_ID, len(self.text))
        return TokenizedText(self.text, (*self.tokens, *[pad] * (length - len(self.tokens))))


class Tokenizer:
    """One SentencePiece model. Safe to use from several threads."""

    def __init__(self, model: bytes, name: str = "tokenizer") -> None:
        """Raises BundleError when ``model`` is no SentencePiece model or numbers its special tokens otherwise."""
        processor = SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(model)
        except (RuntimeError, OSError) as error:
            raise BundleError(f"{name} is not a SentencePiece model: export the bundle again") from error
        found = (processor.pad_id(), processor.bos_id(), processor.eos_id(), processor.unk_id())
        expected = (PAD_ID, BOS_ID, EOS_ID, UNK_ID)
        if found != expected:
            raise BundleError(f"{name}: <pad>, <s>, </s> and <unk> have the ids {found}; a bundle needs {expected}")
        self._processor = processor

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        return cls(path.read_bytes(), path.name)

    @property
    def vocabulary_size(self) -> int:
        return int(self._processor.get_piece_size())

    def piece_id(self, piece: str) -> int | None:
        """The id of a piece of the vocabulary, `</s>` among them; None for what is none."""
        identity = int(self._processor.piece_to_id(piece))
        return identity if self._processor.id_to_piece(identity) == piece else None

    @cached_property
    def byte_values(self) -> dict[int, int]:
        """The pieces that are one byte each, of which characters are made that the vocabulary does not have: id to
        byte. Empty for a vocabulary without byte fallback."""
        ids = filter(self._processor.is_byte, range(self.vocabulary_size))
        return {identity: int(self._processor.id_to_piece(identity)[1:-1], 16) for identity in ids}

    @cached_property
    def word_letters(self) -> frozenset[str]:
        """The letters that pieces of two letters or more are made of, in both cases: those that its words have. A
        vocabulary may have single letters of scripts of which it has no words; one of characters has nothing else."""
        pieces = [self._processor.id_to_piece(i).lstrip(_SPACE) for i in range(self.vocabulary_size)]
        texts = [piece for piece in pieces if piece and all(letter.isalpha() for letter in piece)]
        words = [text for text in texts if len(text) > 1] or texts
        return frozenset(letter for word in words for letter in word + word.lower() + word.upper())

    @property
    def space_id(self) -> int:
        """The piece that is a space by itself; -1 where there is none."""
        identity = self.piece_id(_SPACE)
        return -1 if identity is None else identity

    def is_control(self, piece: str) -> bool:
        """Is it a piece that no text is cut into, such as one that names a language?"""
        identity = self._processor.piece_to_id(piece)
        return identity != UNK_ID and bool(self._processor.is_control(identity))

    def encode(self, text: str, first: str = "") -> TokenizedText:
        """Cut a text into tokens, `</s>` last; an unknown character or word is an UNK_ID of its own place.

        ``first``: a control piece to put before them.
        """
        found = self._processor.encode(text, return_type="offset_mapping")
        before = [_special(identity, 0, first) for identity in self._first_ids(first)]
        return TokenizedText(text, (*before, *self._tokens(text, found), _special(EOS_ID, len(text))))

    def encode_ids(self, text: str, first: str = "") -> list[int]:
        """The ids that ``encode`` gives, `</s>` last, without the offsets."""
        return [*self._first_ids(first), *self._processor.encode(text, return_type=int), EOS_ID]

    def _first_ids(self, first: str) -> list[int]:
        if not first:
            return []
        if not self.is_control(first):
            raise ValueError(f"{first!r} is no control piece of this tokenizer")
        return [int(self._processor.piece_to_id(first))]

    def decode(self, ids: Sequence[int]) -> TokenizedText:
        """The text of ``ids`` and where in it each of them stands; special tokens, wherever they are, give no text."""
        special = [bool(self._processor.is_control(i)) for i in ids]
        plain_ids = [i for i, is_special in zip(ids, special, strict=True) if not is_special]
        found = self._processor.decode(plain_ids, return_type="offset_mapping")
        text: str = found["text"]
        plain = iter(self._tokens(text, found))
        tokens: list[Token] = []
        for i, is_special in zip(ids, special, strict=True):
            place = tokens[-1].end if tokens else 0
            tokens.append(_special(i, place, self._processor.id_to_piece(i)) if is_special else next(plain))
        return TokenizedText(text, tuple(tokens))

    def _tokens(self, text: str, found: dict[str, list[object]]) -> tuple[Token, ...]:
        return tuple(
            Token(identity, piece, *_without_leading_space(text, *span, piece))  # type: ignore[arg-type, call-arg, misc]
            for identity, piece, span in zip(found["ids"], found["pieces"], found["offsets"], strict=True)
        )


def _special(identity: int, place: int, piece: str | None = None) -> Token:
    return Token(identity, piece or _SPECIAL_PIECES[identity], place, place, special=True)


def _without_leading_space(text: str, begin: int, end: int, piece: str) -> tuple[int, int]:
    """SentencePiece counts the space before a word, whichever it is, as the word's; a token of nothing but space keeps
    it. Of a character that it takes for several (ﬃ for f, f, i) the first ones stand before it, with no width."""
    if not piece.startswith(_SPACE) or piece == _SPACE:
        return begin, end
    return end - len(text[begin:end].lstrip().lstrip(_SPACE)), end
