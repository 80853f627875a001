"""Sentences written in capitals: read in lower case, and the answer given in capitals again.

A vocabulary learned from ordinary text has whole words in lower case and single letters in capitals, so that a model
reads "WICHTIG" letter by letter and guesses. For a bundle whose manifest says ``folds_capitals`` such a sentence is
folded to lower case before it is cut into tokens, and what is written is raised. The tokens are those that the model
read and wrote; their places are those in the text as it was sent, and in the translation as it is returned.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

from service.bundle.tokenizer import TokenizedText


def in_capitals(text: str) -> bool:
    """Two or more capitals and no small letter. One capital alone, "I" or "A", is a word of ordinary text."""
    return not any(map(str.islower, text)) and sum(map(str.isupper, text)) > 1


def folded(text: str) -> str:
    """In lower case, letter by letter, so that every letter keeps its place; a letter that becomes two does not, and
    stays as it is."""
    return "".join(lower if len(lower := letter.lower()) == 1 else letter for letter in text)


def raised(target: TokenizedText) -> TokenizedText:
    """A translation in capitals: ß is SS, and the tokens' places move with it."""
    letters = [letter.upper() for letter in target.text]
    places = [0, *accumulate(map(len, letters))]
    tokens = (replace(token, begin=places[token.begin], end=places[token.end]) for token in target.tokens)
    return TokenizedText("".join(letters), tuple(tokens))
