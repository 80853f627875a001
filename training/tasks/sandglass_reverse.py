"""SandGlass's own reverse task: 3 to 22 numbers of 2..59, translated to the same numbers in reverse order.

Beside ``training.tasks.reverse``, which is JoeyNMT's: another range, another vocabulary, so a name of its own. That the
model reads and writes 24 places, padding and all, is the model's affair (``training.models.sandglass``).
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from training.tasks.example import Example

SMALLEST_NUMBER, LARGEST_NUMBER = 2, 59
SHORTEST, LONGEST = 3, 22


def examples(seed: int) -> Iterator[Example]:
    """Endless examples, the same for the same seed. ``annotation`` is empty: position says all."""
    generator = random.Random(seed)
    while True:
        count = generator.randint(SHORTEST, LONGEST)
        numbers = [str(generator.randint(SMALLEST_NUMBER, LARGEST_NUMBER)) for _ in range(count)]
        yield Example(source=" ".join(numbers), target=" ".join(reversed(numbers)), annotation="")
