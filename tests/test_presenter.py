"""What the tiny bundles, with their one map of one head, cannot show: several maps and heads, a shift, a mean."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from service.bundle.manifest import AlignmentEntry, AttentionMapEntry, Manifest, MapKind
from service.bundle.repository import Bundle
from service.engine.hypothesis import FinishReason, Hypothesis
from service.engine.sentence import SentenceResult, Timings
from service.errors import InvalidFieldError, UnsupportedError
from service.presenter import AttentionRequest, MapChoice, Source, View, check_size, present, select_maps


def _map(name: str, layer: int, heads: int, kind: MapKind = "cross") -> AttentionMapEntry:
    return AttentionMapEntry(
        name=name,
        tensor=f"attention_{name}",
        kind=kind,
        layer=layer,
        heads=heads,
        scope_tokens=0,
        score_function="scaled_dot",
        rows_sum_to_one=True,
        includes_end_of_sentence=True,
    )


MAPS = (_map("low", 0, 8), _map("high", 1, 2), _map("unseen", 2, 1))
EMITTED = frozenset({"low", "high"})


def _manifest(numbers: Bundle, **alignment: Any) -> Manifest:
    entry = AlignmentEntry(**({"map": "high", "heads": (0, 1), "shift": 1, "chosen_by": "a test"} | alignment))
    return numbers.manifest.model_copy(update={"attention_maps": MAPS, "alignment": entry})


@pytest.mark.parametrize(
    ("request_", "chosen"),
    [
        (AttentionRequest(View.ALIGNMENT), []),
        (AttentionRequest(View.WORD), [("high", ())]),
        (AttentionRequest(View.FULL), [("low", tuple(range(8))), ("high", (0, 1))]),
        (AttentionRequest(View.TOKEN, heads=(5, 5, 1)), [("low", (5, 1)), ("high", (1,))]),
        (AttentionRequest(View.TOKEN, heads=(7,)), [("low", (7,))]),
        (AttentionRequest(View.WORD, layers=(1,)), [("high", (0, 1))]),
        (AttentionRequest(View.FULL, maps=("high", "low"), layers=(0,)), [("low", tuple(range(8)))]),
    ],
)
def test_maps_and_heads_are_selected_once_each(
    numbers: Bundle, request_: AttentionRequest, chosen: list[tuple[str, tuple[int, ...]]]
) -> None:
    found = select_maps(_manifest(numbers), EMITTED, request_)
    assert [(choice.entry.name, choice.heads) for choice in found] == chosen


@pytest.mark.parametrize(
    "changes",
    [
        {"maps": ("other",)},
        {"maps": ("unseen",)},
        {"layers": (2,)},
        {"heads": (8,)},
        {"maps": ("high",), "layers": (0,)},
        {"maps": ("high",), "heads": (5,)},
    ],
    ids=str,
)
def test_what_no_graph_emits_is_refused(numbers: Bundle, changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match=r"has no attention .* it has low \(layer 0, 8 heads\), high"):
        select_maps(_manifest(numbers), EMITTED, AttentionRequest(View.FULL, **changes))


def test_the_alignment_is_the_shifted_mean_of_its_heads_and_named_maps_are_as_computed(numbers: Bundle) -> None:
    bundle = dataclasses.replace(numbers, manifest=_manifest(numbers))
    source = Source(numbers.source_tokenizer.encode("1 2"))
    ids = tuple(numbers.target_tokenizer.encode_ids("3 4"))
    generator = np.random.default_rng(0)
    attention = {
        name: generator.dirichlet(np.ones(3), size=(3, heads)).astype(np.float32)
        for name, heads in (("low", 8), ("high", 2))
    }
    hypothesis = Hypothesis(ids, np.zeros(3, np.float32), attention, FinishReason.END_OF_SENTENCE)

    def shown(request: AttentionRequest) -> Any:
        maps = select_maps(bundle.manifest, EMITTED, request)
        result = SentenceResult((hypothesis,), Timings(0, 0, 0))
        return present(bundle, request, maps, source, result).hypotheses[0].attention

    mean = attention["high"].mean(axis=1)
    expected = np.stack([mean[1], mean[2], mean[2]])
    default = shown(AttentionRequest(View.TOKEN))
    np.testing.assert_allclose(default.matrices[0].weights[0], expected, rtol=1e-6)
    assert [link.source_word for link in default.links] == [
        int(row.argmax()) for row in expected[:2] if row.argmax() < 2
    ]
    named = shown(AttentionRequest(View.TOKEN, maps=("high",)))
    np.testing.assert_array_equal(named.matrices[0].weights, attention["high"].swapaxes(0, 1))
    averaged = shown(AttentionRequest(View.FULL, mean_of_heads=True))
    np.testing.assert_allclose(averaged.matrices[0].weights[0], attention["low"].mean(axis=1), rtol=1e-6)
    assert [view.heads for view in averaged.matrices] == [(), ()]


def test_matrices_that_no_reply_holds_are_refused_before_they_are_made(numbers: Bundle) -> None:
    source = Source(numbers.source_tokenizer.encode("1 2 3"))
    answer: Any = _answer(target_tokens=10)
    choices = [MapChoice(MAPS[0], tuple(range(8)))]
    fits = AttentionRequest(View.FULL, max_bytes=8 * 10 * 4 * 4)
    check_size(numbers.manifest, fits, choices, [source], [answer])
    with pytest.raises(InvalidFieldError, match="matrices of 2560 bytes; 1280 are allowed"):
        check_size(numbers.manifest, fits, choices, [source] * 2, [answer] * 2)
    packed = AttentionRequest(View.FULL, max_bytes=1280, bytes_per_weight=1)
    check_size(numbers.manifest, packed, choices, [source] * 2, [answer] * 2)


CONTEXT_MAPS = (_map("words", 0, 2, "context"), _map("sentences", 0, 1, "context_sentence"))


def test_what_is_before_a_text_counts_for_the_size_of_a_reply(numbers: Bundle) -> None:
    encode = numbers.source_tokenizer.encode
    plain = Source(encode("1 2 3"))
    told = Source(encode("1 2 3"), (encode("4"), encode("5 6")))
    answer = _answer(target_tokens=10)
    choices = [MapChoice(CONTEXT_MAPS[0], (0, 1)), MapChoice(CONTEXT_MAPS[1], (0,))]
    size = 4 * 10 * (2 * (2 + 3) + 2)  # of the words in two heads, and of the two sentences
    check_size(numbers.manifest, AttentionRequest(View.FULL, max_bytes=size), choices, [plain, told], [answer] * 2)
    check_size(numbers.manifest, AttentionRequest(View.FULL, max_bytes=0), choices, [plain], [answer])
    with pytest.raises(InvalidFieldError, match=f"matrices of {size} bytes; {size - 1} are allowed") as refused:
        check_size(numbers.manifest, AttentionRequest(View.WORD, max_bytes=size - 1), choices, [told], [answer])
    assert refused.value.reason == "REPLY_TOO_LARGE"


def test_the_words_of_several_sentences_are_columns_one_behind_another(letters: Bundle) -> None:
    """Characters are tokens here: a word's column is the sum of its characters', in whichever sentence it stands."""
    manifest = letters.manifest.model_copy(update={"attention_maps": (*letters.manifest.attention_maps, *CONTEXT_MAPS)})
    bundle = dataclasses.replace(letters, manifest=manifest)
    encode = letters.source_tokenizer.encode
    source = Source(encode("abc"), (encode("ab c"), encode("d, ef")))
    ids = tuple(letters.target_tokenizer.encode_ids("ab"))
    generator = np.random.default_rng(0)

    def made_up(heads: int, columns: int) -> Any:
        return generator.dirichlet(np.ones(columns), size=(len(ids), heads)).astype(np.float32)

    read = sum(len(sentence.tokens) for sentence in source.context)
    attention = {"cross": made_up(1, len(source.text.tokens)), "words": made_up(2, read), "sentences": made_up(1, 2)}
    hypothesis = Hypothesis(ids, np.zeros(len(ids), np.float32), attention, FinishReason.END_OF_SENTENCE)
    request = AttentionRequest(View.WORD, maps=("words", "sentences"))
    maps = select_maps(manifest, frozenset(attention), request)
    found = present(bundle, request, maps, source, SentenceResult((hypothesis,), Timings(0, 0, 0)))

    assert [[word.text for word in sentence.words] for sentence in found.context] == [
        ["ab", "c", "</s>"],
        ["d", ",", "ef", "</s>"],
    ]
    assert [sentence.words[0].begin_token for sentence in found.context] == [0, 0]
    view = found.hypotheses[0].attention
    assert view is not None
    words, sentences = view.matrices
    assert (words.of_words, sentences.of_words) == (True, False)
    # ab, c, </s>; d, a comma, ef, </s>: eleven tokens. Written are a and b, one word, and </s>.
    summed = np.add.reduceat(attention["words"].swapaxes(0, 1), [0, 2, 4, 5, 6, 7, 10], axis=2)
    expected = np.stack([summed[:, :2].mean(axis=1), summed[:, 2]], axis=1)
    np.testing.assert_allclose(words.weights, expected, rtol=1e-5)
    np.testing.assert_allclose(words.weights.sum(-1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(sentences.weights, attention["sentences"].swapaxes(0, 1))


def _answer(target_tokens: int) -> Any:
    ids = tuple(range(target_tokens))
    hypothesis = Hypothesis(ids, np.zeros(target_tokens, np.float32), {}, FinishReason.LENGTH)
    return SentenceResult((hypothesis,), Timings(0, 0, 0))
