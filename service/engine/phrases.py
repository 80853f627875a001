"""What a hypothesis must hold: runs of tokens, each written whole, wherever search finds the best place for it.

Lexically constrained decoding (Hokamp and Liu 2017, https://arxiv.org/abs/1704.07138; Post and Vilar 2018,
https://arxiv.org/abs/1804.06609). Phrases here are units, such as a name in another script: once one is begun, it is
written to its end. A space by itself begins none, because anything may follow it.
"""

from __future__ import annotations

from dataclasses import dataclass

Phrase = tuple[int, ...]


@dataclass(frozen=True)
class Unwritten:
    """The phrases that a hypothesis has yet to write, ``left``.

    ``begun`` are those of them that agree with the last ``written`` tokens of the hypothesis; none between phrases.
    ``space`` is the token that is a space by itself, -1 for a vocabulary without one.
    """

    left: tuple[Phrase, ...]
    space: int = -1
    begun: tuple[Phrase, ...] = ()
    written: int = 0

    @property
    def given(self) -> int:
        """How many of the last tokens were no choice: those of what was begun, but for the one that began it."""
        if not self.begun:
            return 0
        return max(0, self.written - (2 if self.begun[0][0] == self.space else 1))

    @property
    def next(self) -> tuple[int, ...]:
        """The tokens that go on with what was begun, or begin a phrase."""
        return tuple(dict.fromkeys(phrase[self.written] for phrase in self.begun or self.left))

    @property
    def binds(self) -> bool:
        """Must one of ``next`` follow?"""
        return bool(self.begun) and self.begun[0][: self.written] != (self.space,)

    def after(self, token: int) -> Unwritten:
        """With one more token written. Of phrases that begin alike the first that is whole is done."""
        going_on = tuple(phrase for phrase in self.begun if phrase[self.written] == token)
        written = self.written + 1 if going_on else 1
        begun = going_on or tuple(phrase for phrase in self.left if phrase[0] == token)
        whole = next((phrase for phrase in begun if len(phrase) == written), None)
        if whole is not None:
            place = self.left.index(whole)
            return Unwritten(self.left[:place] + self.left[place + 1 :], self.space)
        return Unwritten(self.left, self.space, begun, written if begun else 0)
