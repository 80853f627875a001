"""Subword regularisation: the same cut from the same seed in any process, drawn as SentencePiece draws it."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.tokenizer import EOS_ID, UNK_ID, Tokenizer
from training.config import TokenizerConfig
from training.subwords import SubwordSampler, _BpeCutter
from training.tokenizers import train_tokenizer

SYLLABLES = [first + second for first in "bdfgklmnprst" for second in "aeiou"]
KINDS = pytest.mark.parametrize("kind", ["unigram", "bpe"])


def made_up(count: int, seed: int) -> list[str]:
    """Sentences of made-up words, of which few are common."""
    generator = random.Random(seed)
    words = ["".join(generator.choices(SYLLABLES, k=generator.randint(1, 4))) for _ in range(150)]
    weights = [1 / (place + 1) for place in range(150)]
    return [" ".join(generator.choices(words, weights, k=generator.randint(3, 10))) for _ in range(count)]


#: Three common words in one, of which there are many cuts.
WORD = "".join(word for word, _ in Counter(" ".join(made_up(300, 1)).split(" ")).most_common(3))


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of either kind."""
    folder = tmp_path_factory.mktemp("subwords")
    corpus = folder / "text.tsv"
    corpus.write_text("".join(f"{text}\t\t\n" for text in made_up(300, 1)), encoding="utf-8")
    for kind in ("unigram", "bpe"):
        settings_ = TokenizerConfig.model_validate({"kind": kind, "vocabulary_size": 400})
        train_tokenizer(settings_, corpus, (0,), folder / f"{kind}.spm", ["<2en>", "<2de>"])
    return {kind: folder / f"{kind}.spm" for kind in ("unigram", "bpe")}


@KINDS
def test_a_seed_decides_how_a_text_is_cut(learned: dict[str, Path], kind: str) -> None:
    """In whatever order the seeds come, and in whichever sampler."""
    sentences = made_up(60, 1)
    sampler = SubwordSampler(learned[kind], kind, 0.3)
    found = {seed: sampler.encode(sentences, seed) for seed in (0, 1, 2, 2**32 - 2)}
    for seed in (2, 0, 1, 2**32 - 2):
        assert sampler.encode(sentences, seed) == found[seed]
        assert SubwordSampler(learned[kind], kind, 0.3).encode(iter(sentences), seed) == found[seed]
    cuts = list(found.values())
    assert all(one != other for i, one in enumerate(cuts) for other in cuts[:i])


@KINDS
def test_another_process_cuts_alike(learned: dict[str, Path], kind: str) -> None:
    """Else a run that continues after a kill would read other pieces."""
    program = "import sys; from pathlib import Path; from training.subwords import SubwordSampler; "
    program += "print(SubwordSampler(Path(sys.argv[1]), sys.argv[2], 0.3).encode(sys.argv[3:], 5))"
    sentences = made_up(20, 3)
    command = [sys.executable, "-c", program, str(learned[kind]), kind, *sentences]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.strip() == str(SubwordSampler(learned[kind], kind, 0.3).encode(sentences, 5))


@KINDS
@settings(deadline=None)
@given(texts=st.lists(st.text(max_size=12), max_size=4), seed=st.integers(0, 2**32))
def test_however_it_is_cut_a_text_comes_back(learned: dict[str, Path], kind: str, texts: list[str], seed: int) -> None:
    """As SentencePiece normalises it: signs that no piece has are spelt in bytes."""
    tokenizer = Tokenizer.load(learned[kind])
    processor = sentencepiece.SentencePieceProcessor(model_file=str(learned[kind]))
    for text, ids in zip(texts, SubwordSampler(learned[kind], kind, 0.3).encode(texts, seed), strict=True):
        assert ids[-1] == EOS_ID
        assert not {EOS_ID, UNK_ID} & set(ids[:-1])
        assert tokenizer.decode(ids).text == processor.decode(processor.encode(text))


@KINDS
def test_a_text_is_cut_anew_each_time(learned: dict[str, Path], kind: str) -> None:
    sentences = made_up(30, 1)
    cut = SubwordSampler(learned[kind], kind, 0.3).encode(sentences * 2, seed=5)
    assert cut[:30] != cut[30:]


@KINDS
def test_without_chance_it_is_the_plain_cut(learned: dict[str, Path], kind: str) -> None:
    """The likeliest of unigram; BPE that leaves out no merge."""
    tokenizer, sentences = Tokenizer.load(learned[kind]), [*made_up(100, 4), "", " ", "日 ba😀bi"]
    cut = SubwordSampler(learned[kind], kind, 1000.0 if kind == "unigram" else 0.0).encode(sentences, 1)
    same = [ids == list(tokenizer.encode_ids(text)) for ids, text in zip(cut, sentences, strict=True)]
    assert sum(same) >= len(same) - 2, "but for cuts that are as likely"


def test_all_merges_left_out_leave_characters(learned: dict[str, Path]) -> None:
    tokenizer = Tokenizer.load(learned["bpe"])
    (ids,) = SubwordSampler(learned["bpe"], "bpe", 1.0).encode([WORD], 1)
    assert len(ids) == len(WORD) + 2
    assert tokenizer.decode(ids).text == WORD


@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_cuts_of_unigram_are_drawn_as_often_as_sentencepiece_draws_them(learned: dict[str, Path], alpha: float) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(learned["unigram"]))
    draws = 4000
    cut = SubwordSampler(learned["unigram"], "unigram", alpha).encode([WORD] * draws, 1)
    own = Counter(tuple(ids[:-1]) for ids in cut)
    options = {"enable_sampling": True, "alpha": alpha, "nbest_size": -1}
    theirs = Counter(tuple(processor.encode(WORD, **options)) for _ in range(draws))
    assert len(own) > 3
    for pieces, count in (own + theirs).most_common(5):
        # The difference of two binomial counts, six standard deviations wide.
        share = count / (2 * draws)
        assert abs(own[pieces] - theirs[pieces]) <= 6 * (2 * draws * share * (1 - share)) ** 0.5 + 1


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_each_merge_of_bpe_is_left_out_with_its_probability(p: float) -> None:
    """Of "abc" with the merges "ab" and then "bc", algorithm 1 of the paper by hand."""
    ids = {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4}

    class Pieces:
        scores = (0.0, 0.0, 0.0, -1.0, -2.0)

        def __init__(self) -> None:
            self.ids = ids

        def spelt(self, text: str) -> tuple[int, ...]:
            return (ids[text],)

    cutter, generator, draws = _BpeCutter(Pieces(), p), random.Random(1), 20_000  # type: ignore[arg-type]
    found = Counter(tuple(cutter.cut("abc", generator)) for _ in range(draws))
    wanted = {(3, 2): 1 - p, (0, 4): p * (1 - p), (0, 1, 2): p * p}
    assert {cut: count / draws for cut, count in found.items()} == pytest.approx(wanted, abs=0.02)


def test_a_greater_alpha_takes_likelier_cuts(learned: dict[str, Path]) -> None:
    def distinct(alpha: float) -> int:
        return len({tuple(ids) for ids in SubwordSampler(learned["unigram"], "unigram", alpha).encode([WORD] * 500, 1)})

    assert distinct(0.01) > distinct(0.5) > distinct(3.0)


@KINDS
def test_a_control_piece_stands_before_what_is_cut_as_without_it(learned: dict[str, Path], kind: str) -> None:
    sentences, pieces = made_up(3, 1), ["<2en>", "", "<2de>"]
    sampler, tokenizer = SubwordSampler(learned[kind], kind, 0.3), Tokenizer.load(learned[kind])
    wanted = [
        [*([tokenizer.encode_ids("", piece)[0]] if piece else []), *ids]
        for piece, ids in zip(pieces, sampler.encode(sentences, 5), strict=True)
    ]
    assert sampler.encode(sentences, 5, pieces) == wanted
