"""Scores of text: against all references, by the length of the source."""

from __future__ import annotations

import pytest
import sacrebleu

from training.tasks import Example
from training.text_scores import score_by_length, score_texts, with_references

FOUND = ["the cat sat on the mat", "a dog ran", "no match here at all"]
FIRST = ["the cat sat on the mat", "the dog ran away", "something else it was there"]


def test_with_one_reference_each_they_are_sacrebleus() -> None:
    scores = score_texts(FOUND, [[text] for text in FIRST], lower_case=False)
    assert scores.bleu == pytest.approx(sacrebleu.corpus_bleu(FOUND, [FIRST]).score)
    assert scores.chrf == pytest.approx(sacrebleu.corpus_chrf(FOUND, [FIRST]).score)
    assert (scores.sentences, scores.exact_match) == (3, pytest.approx(1 / 3))
    assert scores.bleu_signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert scores.chrf_signature.startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")


def test_a_sentence_may_have_more_references_than_another() -> None:
    """What more references add is what sacreBLEU makes of the sentence that has them."""
    second = [FIRST[0], FOUND[1], FIRST[2]]
    scores = score_texts(FOUND, [[FIRST[0]], [FIRST[1], FOUND[1]], [FIRST[2]]], lower_case=False)
    repeated = score_texts(FOUND, [list(pair) for pair in zip(FIRST, second, strict=True)], lower_case=False)
    assert (scores.bleu, scores.chrf) == (pytest.approx(repeated.bleu), pytest.approx(repeated.chrf))
    assert scores.exact_match == pytest.approx(2 / 3)
    assert scores.bleu > score_texts(FOUND, [[text] for text in FIRST], lower_case=False).bleu


def test_case_counts_unless_it_is_lowered() -> None:
    upper = [text.upper() for text in FIRST]
    references = [[text] for text in upper]
    assert score_texts(FIRST, references, lower_case=True).bleu == pytest.approx(100)
    assert "case:lc" in score_texts(FIRST, references, lower_case=True).bleu_signature
    assert score_texts(FIRST, references, lower_case=False).bleu < 5


def test_each_source_is_translated_once() -> None:
    examples = [Example("b", "1", ""), Example("a", "2", ""), Example("b", "3", "")]
    assert with_references(examples) == {"b": ["1", "3"], "a": ["2"]}


def test_buckets_are_by_the_words_of_the_source() -> None:
    references = {"one " * words: [FIRST[0]] for words in (1, 5, 6, 10, 11, 20, 21, 40)}
    found = [FIRST[0]] * 4 + ["wrong"] * 4
    scores = score_by_length(found, references, lower_case=False)
    assert {name: (part.sentences, part.exact_match) for name, part in scores.items()} == {
        "all": (8, 0.5),
        "1-5 words": (2, 1.0),
        "6-10 words": (2, 1.0),
        "11-20 words": (2, 0.0),
        "21 words and more": (2, 0.0),
    }
    assert "11-20 words" not in score_by_length(["x"], {"one": ["x"]}, lower_case=False)


def test_nothing_has_no_score() -> None:
    with pytest.raises(ValueError, match="0 translations, references for 0"):
        score_texts([], [], lower_case=False)
    with pytest.raises(ValueError, match="1 translations, references for 2"):
        score_texts(["a"], [["a"], ["b"]], lower_case=False)
