"""Bytes that make whole characters: which may follow one another where a vocabulary writes rare characters in bytes.

SentencePiece's byte fallback writes a character that the vocabulary does not have as its UTF-8 bytes, a token each. A
model may stop in the middle, and half a character is none: U+FFFD. The order in which bytes make characters is that of
RFC 3629, section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

_MOST_BYTES = 4
_CONTINUING = range(0x80, 0xC0)
_LEADING = range(0xC2, 0xF5)  # 0xC0 and 0xC1 would write what one byte writes, 0xF5 and above what Unicode has not
_SECOND = {0xE0: range(0xA0, 0xC0), 0xED: range(0x80, 0xA0), 0xF0: range(0x90, 0xC0), 0xF4: range(0x80, 0x90)}


class ByteTokens:
    """The tokens of a vocabulary that are one byte each. None in most: then it is false."""

    def __init__(self, values: Mapping[int, int]) -> None:
        """``values``: token id to byte."""
        self._values = values
        self._ids = {value: token for token, value in values.items()}
        #: Tokens that begin no character.
        self.within = self._tokens(value for value in range(0x80, 0x100) if value not in _LEADING)

    def __bool__(self) -> bool:
        return bool(self._values)

    def __contains__(self, token: int) -> bool:
        return token in self._values

    def next(self, backwards: Iterable[int]) -> Ids | None:
        """The tokens of which one must follow, within a character; None where one may begin.

        ``backwards``: the tokens that were written, the last first. It is not read further than it must be.
        """
        written: list[int] = []
        for token in backwards:
            value = self._values.get(token)
            if value is None or len(written) == _MOST_BYTES:
                return None
            written.insert(0, value)
            if value not in _CONTINUING:
                break
        following = _following(written)
        tokens = self._tokens(following)
        return tokens if len(tokens) else None

    def _tokens(self, values: Iterable[int]) -> Ids:
        return np.array([self._ids[value] for value in values if value in self._ids], dtype=np.int64)


def _following(written: list[int]) -> range:
    """What may follow the bytes of a character so far; nothing where it is whole, or none."""
    if not written or written[0] not in _LEADING:
        return range(0)
    lead = written[0]
    length = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    second = _SECOND.get(lead, _CONTINUING)
    if len(written) == 1:
        return second
    return range(0) if len(written) >= length or written[1] not in second else _CONTINUING


#: Of a vocabulary whose tokens are whole characters, or more.
NO_BYTES = ByteTokens({})
