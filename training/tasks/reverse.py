"""The reverse task of JoeyNMT: a sequence of numbers, translated to the same numbers in reverse order.

As text, both sides are numbers "1".."50" separated by spaces. Knows nothing of tokens, files or models.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from training.tasks.example import Example

LARGEST_NUMBER = 50
LONGEST = 25


def examples(seed: int) -> Iterator[Example]:
    """Endless examples of length 1..25, the same for the same seed. ``annotation`` is empty: position says all."""
    return examples_of_length(1, LONGEST, seed)


def examples_of_length(shortest: int, longest: int, seed: int) -> Iterator[Example]:
    """The same of other lengths, such as those that no model was trained on."""
    generator = random.Random(seed)
    while True:
        numbers = [str(generator.randint(1, LARGEST_NUMBER)) for _ in range(generator.randint(shortest, longest))]
        yield Example(source=" ".join(numbers), target=" ".join(reversed(numbers)), annotation="")


def attention_hits(example: Example, looked_at: list[tuple[int, int]]) -> list[bool]:
    """For each number of the target: was the source number of greatest weight its mirror image (the anti-diagonal)?

    ``looked_at`` has, for each target number, the span (begin, end) in the source text of greatest weight.
    """
    spans = []
    begin = 0
    for number in example.source.split(" "):
        spans.append((begin, begin + len(number)))
        begin += len(number) + 1
    mirrored = spans[::-1]
    return [
        begin < wanted_end and end > wanted_begin
        for (begin, end), (wanted_begin, wanted_end) in zip(looked_at, mirrored, strict=True)
    ]
