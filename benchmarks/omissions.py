"""How well words that a translation leaves out are told (``service.coverage``): of the shipped models' own
translations, of those by people, where most alarms are false, and of those by people from which a name or a number was
taken out, where it should be told; and of texts that deny something (``service.negations``).

    heed-train prepare training/configs/tatoeba-de-en-v10.yaml       # and en-de: the test part
    python -m benchmarks.omissions [LIMIT] [MODELS]

Prints Markdown for docs/benchmarks.md, and on standard error ten examples of each kind.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.measuring import ROOT
from service.bundle.repository import Bundle, Repository
from service.coverage import tells_something
from service.engine.decoding import Decoding
from service.engine.engine import Engine, EngineSettings
from service.engine.onnx_model import open_model
from service.engine.sentence import SentenceRequest, SentenceResult
from service.negations import denies
from service.recovery import Attempt, kept_literals
from service.second_tries import Checked, checked
from training.config import load_config
from training.corpus import Corpus
from training.evaluate import default_decoding

PAIRS = ("de-en", "en-de")
_LIMIT = 1000
_SHOWN = 10
#: Asked for so, nothing is searched again: what is left out of the best is told.
_TOLD_ALONE = Decoding(beam_size=2, hypotheses=2)
_WORD = re.compile(r"\w+")


def main() -> None:
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else _LIMIT
    models = Repository(Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "exported")
    print("| | own translations | some word is left out | mended | told | seconds of search, of looking through |")
    print("|---|---|---|---|---|---|")
    judged, denied = list[str](), list[str]()
    for pair in PAIRS:
        name = f"tatoeba-{pair}"
        bundle = models.load(name, max(models.versions()[name]))
        config = load_config(ROOT / "training" / "configs" / f"{name}-v{bundle.manifest.version}.yaml")
        test = list(Corpus(ROOT / config.run_directory / "data").examples("test"))
        examples = test[:limit]
        engine = Engine(open_model(bundle), EngineSettings(queue_tokens=2**31))
        try:
            print(_own(bundle, engine, [one.source for one in examples]))
            pairs = [(one.source, one.target) for one in examples]
            judged.append(_by_people(bundle, engine, pairs))
            denied.append(_denying(bundle, engine, [one.source for one in test], limit))
        finally:
            engine.stop()
    print("\n| | by people | some word is told | with a name or number taken out | it is told |")
    print("|---|---|---|---|---|")
    print("\n".join(judged))
    print("\n| | texts that deny | a word of negation is told |")
    print("|---|---|---|")
    print("\n".join(denied))


def _own(bundle: Bundle, engine: Engine, sources: Sequence[str]) -> str:
    attempts = [_attempt(bundle, source, default_decoding(bundle)) for source in dict.fromkeys(sources)]
    begun = time.perf_counter()
    first = engine.translate([attempt.request for attempt in attempts])
    searched = time.perf_counter() - begun
    left_out = _told(engine, [_attempt(bundle, attempt.text, _TOLD_ALONE) for attempt in attempts], first)
    begun = time.perf_counter()
    found = asyncio.run(checked(engine, attempts, dict(enumerate(first))))
    looked = time.perf_counter() - begun
    told = {place: one for place, one in found.items() if one.left_out}
    _show(f"{bundle.label}, told", bundle, attempts, told)
    mended = {place: found[place] for place in left_out if found[place].result is not first[place]}
    _show(f"{bundle.label}, searched again and better", bundle, attempts, mended)
    return (
        f"| {bundle.label} | {len(attempts)} | {_share(len(left_out), len(attempts))} | "
        f"{_share(len(mended), len(attempts))} | {_share(len(told), len(attempts))} | {searched:.0f}, {looked:.0f} |"
    )


def _by_people(bundle: Bundle, engine: Engine, pairs: Sequence[tuple[str, str]]) -> str:
    attempts, results = _given(bundle, engine, pairs)
    alarms = _told(engine, attempts, results)
    _show(f"{bundle.label}, by people", bundle, attempts, alarms)
    generator = random.Random(1)
    cut = [found for pair in pairs if (found := _without_one(bundle, *pair, generator)) is not None]
    told = _told(engine, *_given(bundle, engine, [(source, target) for source, target, _ in cut]))
    hits = sum(cut[place][2] in [word.text for word in one.left_out] for place, one in told.items())
    shares = _share(len(alarms), len(pairs)), _share(hits, len(cut))
    return f"| {bundle.label} | {len(pairs)} | {shares[0]} | {len(cut)} | {shares[1]} |"


def _denying(bundle: Bundle, engine: Engine, sources: Sequence[str], limit: int) -> str:
    """Of the first ``limit`` texts that deny something, as the model translates them."""
    (language,) = bundle.manifest.source_languages
    texts = dict.fromkeys(
        text for text in sources if any(denies(word, language) for word in re.findall(r"[\w'’]+", text))
    )
    attempts = [_attempt(bundle, text, default_decoding(bundle)) for text in itertools.islice(texts, limit)]
    first = engine.translate([attempt.request for attempt in attempts])
    found = asyncio.run(checked(engine, attempts, dict(enumerate(first))))
    told = {place: one for place, one in found.items() if any(denies(word.text, language) for word in one.left_out)}
    _show(f"{bundle.label}, a negation is told", bundle, attempts, told)
    return f"| {bundle.label} | {len(attempts)} | {_share(len(told), len(attempts))} |"


def _without_one(bundle: Bundle, source: str, target: str, generator: random.Random) -> tuple[str, str, str] | None:
    """A pair without a word of the target that the source has too, once each, and the word."""
    words = [word for word in _WORD.findall(source) if (word[0].isupper() or word.isdigit()) and len(word) > 1]
    alike = [
        word
        for word in words
        if words.count(word) == _WORD.findall(target).count(word) == 1 and tells_something(word, bundle.unaligned_words)
    ]
    if not alike:
        return None
    gone = generator.choice(alike)
    rest = " ".join(re.sub(rf"\b{gone}\b", "", target).split())
    return (source, rest, gone) if _WORD.search(rest) else None


def _given(
    bundle: Bundle, engine: Engine, pairs: Sequence[tuple[str, str]]
) -> tuple[list[Attempt], list[SentenceResult]]:
    """Translations by people, as if the model had written them."""
    attempts, given = [], list[SentenceRequest]()
    for source, target in pairs:
        ids = tuple(bundle.encode_begun(target, capitals=False).ids)
        attempts.append(_attempt(bundle, source, _TOLD_ALONE))
        given.append(replace(attempts[-1].request, decoding=Decoding(prefix_ids=ids), max_target_tokens=len(ids)))
    return attempts, engine.translate(given)


def _told(engine: Engine, attempts: Sequence[Attempt], results: Sequence[SentenceResult]) -> dict[int, Checked]:
    """Those that leave something out, where nothing is searched again."""
    found = asyncio.run(checked(engine, attempts, dict(enumerate(results))))
    return {place: one for place, one in found.items() if one.left_out}


def _attempt(bundle: Bundle, text: str, decoding: Decoding) -> Attempt:
    source = bundle.encode(text)
    most = bundle.manifest.limits.max_target_tokens
    request = SentenceRequest(tuple(source.ids), most, "alignment", decoding=decoding)
    return Attempt(bundle, source, kept_literals(bundle, text), request)


def _show(title: str, bundle: Bundle, attempts: Sequence[Attempt], found: dict[int, Checked]) -> None:
    print(f"{title}: {len(found)}", file=sys.stderr)
    for place in random.Random(1).sample(sorted(found), min(_SHOWN, len(found))):
        left_out = ", ".join(word.text for word in found[place].left_out)
        text = bundle.decode(found[place].result.hypotheses[0].target_ids).text
        print(f"  [{left_out}] {attempts[place].text} | {text}", file=sys.stderr)


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / max(1, whole):.1%})"


if __name__ == "__main__":
    main()
