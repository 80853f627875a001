"""What the sentences before are worth: dates-in-context with its context, without, and with another story's.

    python -m benchmarks.documents [SENTENCES]

The shipped bundle, through the service's own engine, on fresh stories; apart, those whose last sentence lacks its year.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

from benchmarks.measuring import ROOT, shipped
from training.config import load_config
from training.evaluate import score_examples
from training.tasks import Example
from training.tasks.dates_in_context import year_sentence

_NAME = "dates-in-context"
Change = Callable[[list[Example]], list[Example]]


def _of_the_next(stories: list[Example]) -> list[Example]:
    """Each story's last sentence behind the sentences of the next story."""
    return [replace(one, context=other.context) for one, other in zip(stories, stories[1:] + stories[:1], strict=True)]


_CHANGES: dict[str, Change] = {
    "its own": lambda stories: stories,
    "none": lambda stories: [replace(story, context=()) for story in stories],
    "another story's": _of_the_next,
}


def main() -> None:
    bundle, stories = shipped(_NAME, int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
    config = load_config(ROOT / "training" / "configs" / f"{_NAME}.yaml")
    lacking = [year_sentence(story) is not None for story in stories]
    print(f"{len(stories)} stories, {sum(lacking)} whose last sentence lacks its year")
    print("| sentences before | exact | exact where the year is there | exact where the last sentence has its own |")
    for name, change in _CHANGES.items():
        changed = change(stories)
        scores, found = score_examples(config, bundle, changed)
        right = [text == story.target for text, story in zip(found, stories, strict=True)]
        there = [hit for hit, lacks in zip(right, lacking, strict=True) if lacks]
        own = [hit for hit, lacks in zip(right, lacking, strict=True) if not lacks]
        shares = [sum(part) / len(part) for part in (right, there, own)]
        print(f"| {name} | " + " | ".join(f"{share:.2%}" for share in shares) + " |", flush=True)
        if name == "its own":
            print(f"attention: day and month {scores.attention_accuracy:.2%}, year {scores.context_accuracy:.2%}")


if __name__ == "__main__":
    main()
