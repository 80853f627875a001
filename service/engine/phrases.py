"""What a hypothesis must hold: runs of tokens, each whole, wherever search finds the best place for it.

Lexically constrained decoding (Hokamp and Liu 2017, https://arxiv.org/abs/1704.07138; Post and Vilar 2018,
https://arxiv.org/abs/1804.06609). Here is only what one hypothesis has written of its phrases; what is made of it is
search's.
"""

from __future__ import annotations

from dataclasses import dataclass

Phrase = tuple[int, ...]


@dataclass(frozen=True)
class Unwritten:
    """The phrases that a hypothesis has yet to write.

    ``matched`` are its last tokens, as far as they are the beginning of one of ``left``; ``whole`` is the longest of
    ``left`` that they begin with, which is written already and waits for a longer one to go on or to break off.
    ``space`` is the token that is a space by itself, -1 for a vocabulary without one.
    """

    left: tuple[Phrase, ...]
    space: int = -1
    matched: Phrase = ()
    whole: Phrase | None = None

    @property
    def lacking(self) -> tuple[Phrase, ...]:
        """Those that are not written."""
        return self.left if self.whole is None else _without(self.left, self.whole)

    @property
    def within(self) -> bool:
        """Is one begun, and not whole?"""
        return bool(self.matched) and self.matched != self.whole

    @property
    def next(self) -> tuple[int, ...]:
        """The tokens that go on with what is begun; between phrases those that begin one, too."""
        begun, length = self.matched, len(self.matched)
        going_on = [one[length] for one in self.left if len(one) > length and one[:length] == begun] if begun else []
        beginning = [] if self.within else [one[0] for one in self.lacking]
        return tuple(dict.fromkeys(going_on + beginning))

    @property
    def given(self) -> int:
        """How many of the last tokens were no choice: those within a phrase, but for the one that began it. That a
        space by itself was written says nothing yet."""
        if not self.within:
            return 0
        behind = self.matched[len(self.whole or ()) :]
        return max(0, len(behind) - (2 if behind[0] == self.space else 1))

    def after(self, token: int) -> Unwritten:
        """With one more token written."""
        matched = (*self.matched, token)
        alike = [one for one in self.left if one[: len(matched)] == matched]
        if alike:
            whole = matched if matched in alike else self.whole
            if whole == matched and all(len(one) == len(matched) for one in alike):
                return Unwritten(_without(self.left, matched), self.space)
            return Unwritten(self.left, self.space, matched, whole)
        # It breaks off. What was written may begin another one later than it seemed.
        state = Unwritten(self.lacking, self.space)
        for earlier in matched[len(self.whole or (0,)) :]:
            state = state.after(earlier)
        return state


def _without(phrases: tuple[Phrase, ...], one: Phrase) -> tuple[Phrase, ...]:
    place = phrases.index(one)
    return phrases[:place] + phrases[place + 1 :]
