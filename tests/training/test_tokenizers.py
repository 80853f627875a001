"""Tokenizers that know their whole corpus, and give a text back as it was."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.tokenizer import EOS_ID, PAD_ID, UNK_ID, Tokenizer
from tests.training.conftest import ignore_progress, tiny_values
from training.config import Config, TokenizerConfig
from training.corpus import Corpus, prepare
from training.errors import CorpusError
from training.tokenizers import train_tokenizer, with_symbols_as_bytes

SPECIAL_PIECES = 4  # <pad>, <s>, </s>, <unk>
_numbers = itertools.count()


def trained(
    directory: Path, kind: Literal["char", "word"], sources: list[str], targets: list[str] | None = None
) -> Path:
    """Train on a TSV file; the column is the targets' if there are any. Returns the model's path."""
    corpus, output = directory / f"{next(_numbers)}.tsv", directory / f"{next(_numbers)}.spm"
    pairs = zip(sources, targets or ["?"] * len(sources), strict=True)
    corpus.write_text("".join(f"{source}\t{target}\t.\n" for source, target in pairs), encoding="utf-8", newline="\n")
    train_tokenizer(TokenizerConfig(kind=kind), corpus, [1 if targets else 0], output)
    return output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


# --- characters ------------------------------------------------------------------------------------------------------


def test_every_date_comes_back_as_it_was_sent(dates_corpus: Corpus) -> None:
    tokenizer = Tokenizer.load(dates_corpus.tokenizer_path("source"))
    for example in dates_corpus.examples("training"):
        ids = tokenizer.encode_ids(example.source)
        assert len(ids) == len(example.source) + 1
        assert ids[-1] == EOS_ID
        assert UNK_ID not in ids
        assert tokenizer.decode(ids).text == example.source


def test_a_character_is_a_piece_and_no_other_is(dates_corpus: Corpus) -> None:
    characters = set("".join(example.source for example in dates_corpus.examples("training")))
    tokenizer = Tokenizer.load(dates_corpus.tokenizer_path("source"))
    assert len(characters) > 200
    assert " " in characters
    assert tokenizer.vocabulary_size == len(characters) + SPECIAL_PIECES
    assert len({tokenizer.encode_ids(character)[0] for character in characters}) == len(characters)


# No line break or tab can stand in a TSV file. The others SentencePiece keeps for itself: the end of a text, a
# separator, its sign for a space and its sign for the unknown. None of them is in a date.
CHARACTERS = st.characters(codec="utf-8", exclude_characters="\t\r\n\0\x1f▁▅")
LETTERS = CHARACTERS.filter(lambda character: character != " ")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(CHARACTERS, max_size=30), max_size=4), LETTERS, st.text(st.sampled_from(" \u00a0\u3000 e\u0301"))
)
def test_characters_of_any_script_and_spaces_anywhere_come_back(
    folder: Path, texts: list[str], letter: str, spaces: str
) -> None:
    texts = [*texts, letter, spaces]  # at least one character that is no space
    tokenizer = Tokenizer.load(trained(folder, "char", texts))
    assert tokenizer.vocabulary_size == len(set("".join(texts))) + SPECIAL_PIECES
    for text in texts:
        ids = tokenizer.encode_ids(text)
        assert len(ids) == len(text) + 1
        assert UNK_ID not in ids
        assert tokenizer.decode(ids).text == text


def test_a_large_alphabet_is_known_whole(tmp_path: Path) -> None:
    """More than one sentence of SentencePiece's training, which drops sentences that are too long."""
    alphabet = [chr(0x4E00 + i) for i in range(2500)] + [" "]
    tokenizer = Tokenizer.load(trained(tmp_path, "char", ["".join(alphabet)]))
    assert tokenizer.vocabulary_size == len(alphabet) + SPECIAL_PIECES
    assert UNK_ID not in tokenizer.encode_ids("".join(alphabet))


def test_a_character_of_the_held_out_text_may_be_unknown(tmp_path: Path) -> None:
    ids = Tokenizer.load(trained(tmp_path, "char", ["ab"])).encode_ids("aΩb")
    assert [identity == UNK_ID for identity in ids] == [False, True, False, False]


# --- words -----------------------------------------------------------------------------------------------------------


def test_a_word_is_a_piece_and_no_other_is(reverse_corpus: Corpus) -> None:
    for side in ("source", "target"):
        tokenizer = Tokenizer.load(reverse_corpus.tokenizer_path(side))
        assert tokenizer.vocabulary_size == 50 + SPECIAL_PIECES
        for example in reverse_corpus.examples("training"):
            text = getattr(example, side)
            ids = tokenizer.encode_ids(text)
            assert len(ids) == len(text.split(" ")) + 1
            assert UNK_ID not in ids
            assert tokenizer.decode(ids).text == text


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab1é日"), min_size=1, max_size=20), min_size=1, max_size=8))
def test_words_of_any_length_come_back(folder: Path, words: list[str]) -> None:
    tokenizer = Tokenizer.load(trained(folder, "word", [" ".join(words)]))
    ids = tokenizer.encode_ids(" ".join(words))
    assert tokenizer.vocabulary_size == len(set(words)) + SPECIAL_PIECES
    assert len(set(ids[:-1])) == len(set(words))
    assert tokenizer.decode(ids).text == " ".join(words)


def test_a_word_that_was_never_seen_is_unknown(tmp_path: Path) -> None:
    ids = Tokenizer.load(trained(tmp_path, "word", ["1 2 3"])).encode_ids("1 23 3")
    assert [identity == UNK_ID for identity in ids] == [False, True, False, False]


# --- both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["char", "word"])
def test_order_and_frequency_play_no_part(tmp_path: Path, kind: Literal["char", "word"]) -> None:
    once = trained(tmp_path, kind, ["b a", "c"])
    often = trained(tmp_path, kind, ["c c", "a b", "b", "c a"])
    other = trained(tmp_path, kind, ["c c", "a b", "b", "c d"])
    assert once.read_bytes() == often.read_bytes()
    assert once.read_bytes() != other.read_bytes()


@pytest.mark.parametrize("kind", ["char", "word"])
def test_the_column_decides_the_side(tmp_path: Path, kind: Literal["char", "word"]) -> None:
    tokenizer = Tokenizer.load(trained(tmp_path, kind, ["a b"], targets=["x y"]))
    assert UNK_ID not in tokenizer.encode_ids("x y")
    assert UNK_ID in tokenizer.encode_ids("a")


@pytest.mark.parametrize("kind", ["char", "word"])
def test_two_columns_make_one_vocabulary(tmp_path: Path, kind: Literal["char", "word"]) -> None:
    corpus, output = tmp_path / "pairs.tsv", tmp_path / "shared.spm"
    corpus.write_text("a b\tx y\t.\n", encoding="utf-8", newline="\n")
    tokenizer = train_tokenizer(TokenizerConfig(kind=kind), corpus, [0, 1], output)
    assert UNK_ID not in tokenizer.encode_ids("a b x y")
    assert UNK_ID in tokenizer.encode_ids(".")


# --- learned pieces --------------------------------------------------------------------------------------------------

Learned = Literal["unigram", "bpe"]
LEARNED = pytest.mark.parametrize("kind", ["unigram", "bpe"])
SIZE = 330  # 4 special pieces, 256 bytes, 18 letters and a sign for the space, and some to learn
SYLLABLES = [first + second for first in "bdfgklmnprst" for second in "aeiou"]


def made_up(count: int, seed: int) -> list[str]:
    """Sentences of made-up words, of which few are common."""
    generator = random.Random(seed)
    words = ["".join(generator.choices(SYLLABLES, k=generator.randint(1, 4))) for _ in range(150)]
    weights = [1 / (place + 1) for place in range(150)]
    return [" ".join(generator.choices(words, weights, k=generator.randint(3, 10))) for _ in range(count)]


def write_pairs(path: Path, sources: list[str], targets: list[str]) -> Path:
    lines = (f"{source}\t{target}\t\n" for source, target in zip(sources, targets, strict=True))
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
    return path


def learn(directory: Path, kind: Learned, corpus: Path, columns: tuple[int, ...] = (0,), **more: Any) -> Path:
    settings = TokenizerConfig.model_validate({"kind": kind, "vocabulary_size": SIZE, **more})
    output = directory / f"{next(_numbers)}.spm"
    train_tokenizer(settings, corpus, columns, output)
    return output


@pytest.fixture(scope="module")
def text(folder: Path) -> Path:
    """300 pairs, whose targets are of other words than their sources."""
    return write_pairs(folder / "text.tsv", made_up(300, 1), made_up(300, 2))


@pytest.fixture(scope="module")
def learned(folder: Path, text: Path) -> dict[str, Path]:
    """A model of the sources, of either kind."""
    return {kind: learn(folder, kind, text) for kind in ("unigram", "bpe")}


@LEARNED
def test_as_many_pieces_are_learned_as_were_asked_for(learned: dict[str, Path], text: Path, kind: Learned) -> None:
    """With which its text comes back, in fewer pieces than letters."""
    tokenizer = Tokenizer.load(learned[kind])
    assert tokenizer.vocabulary_size == SIZE
    pieces, letters = 0, 0
    for sentence in made_up(300, 1):
        ids = tokenizer.encode_ids(sentence)
        assert ids[-1] == EOS_ID
        assert not {PAD_ID, UNK_ID} & set(ids)
        assert tokenizer.decode(ids).text == sentence
        pieces, letters = pieces + len(ids) - 1, letters + len(sentence)
    assert pieces < 0.6 * letters


def test_the_two_kinds_learn_other_pieces(learned: dict[str, Path]) -> None:
    """Why the tests of either say something."""
    one, other = (Tokenizer.load(path) for path in learned.values())
    assert any(one.encode_ids(sentence) != other.encode_ids(sentence) for sentence in made_up(20, 1))


@LEARNED
def test_common_words_are_pieces(learned: dict[str, Path], kind: Learned) -> None:
    tokenizer = Tokenizer.load(learned[kind])
    sentences = made_up(300, 1)
    words = [word for sentence in sentences for word in sentence.split(" ")]
    common = max(set(words), key=words.count)
    assert len(tokenizer.encode_ids(common)) == 2


@LEARNED
@settings(max_examples=40, deadline=None)
@given(text=st.text(st.sampled_from("ab日€😀Ωż"), min_size=1, max_size=20))
def test_what_was_never_seen_falls_back_to_bytes(learned: dict[str, Path], kind: Learned, text: str) -> None:
    tokenizer = Tokenizer.load(learned[kind])
    ids = tokenizer.encode_ids(text)
    assert UNK_ID not in ids
    assert tokenizer.decode(ids).text == text


@LEARNED
def test_a_text_is_normalised_by_compatibility(learned: dict[str, Path], kind: Learned) -> None:
    tokenizer = Tokenizer.load(learned[kind])
    assert tokenizer.encode_ids("ﬁ ｂａ  ba") == tokenizer.encode_ids("fi ba ba")


LEARN = """
import sys
from pathlib import Path
from training.config import TokenizerConfig
from training.tokenizers import train_tokenizer
_, text, output, kind, sentences = sys.argv
settings = TokenizerConfig(kind=kind, vocabulary_size=300, training_sentences=int(sentences))
train_tokenizer(settings, Path(text), (0,), Path(output))
"""


@LEARNED
@pytest.mark.parametrize("sentences", [150, 1_000_000])
def test_the_same_text_gives_the_same_file_in_every_process(
    tmp_path: Path, text: Path, kind: Learned, sentences: int
) -> None:
    """Of a sample of it too: a run continues only with the tokenizers that it began with."""
    found = set()
    for number in range(3):
        output = tmp_path / f"{number}.spm"
        command = [sys.executable, "-c", LEARN, str(text), str(output), kind, str(sentences)]
        subprocess.run(command, check=True)
        found.add(output.read_bytes())
    assert len(found) == 1


@LEARNED
def test_a_sample_is_of_the_whole_text(tmp_path: Path, kind: Learned) -> None:
    """A letter that it has is a piece; one that it has not would be two bytes."""
    letters = ("αβγδ", "абвг")
    lines = [" ".join(random.Random(i).choices(letters[i // 300], k=9)) for i in range(600)]
    corpus = write_pairs(tmp_path / "halves.tsv", lines, lines)
    tokenizer = Tokenizer.load(learn(tmp_path, kind, corpus, training_sentences=150, vocabulary_size=270))
    for letter in "".join(letters):
        assert len(tokenizer.encode_ids(letter)) < len(["▁", "<0xCE>", "<0xB1>", "</s>"])


@LEARNED
def test_the_columns_decide_the_text(tmp_path: Path, text: Path, kind: Learned, learned: dict[str, Path]) -> None:
    """Each side's tokenizer cuts its own text shorter; that of both knows both."""
    target, both = (Tokenizer.load(learn(tmp_path, kind, text, columns)) for columns in ((1,), (0, 1)))
    source = Tokenizer.load(learned[kind])

    def pieces(tokenizer: Tokenizer, seed: int) -> int:
        return sum(len(tokenizer.encode_ids(sentence)) for sentence in made_up(100, seed))

    assert pieces(source, 1) < pieces(both, 1) < pieces(target, 1)
    assert pieces(target, 2) < pieces(both, 2) < pieces(source, 2)


@LEARNED
@pytest.mark.parametrize("lines", [[], ["ba"], ["ba bi bo"] * 50])
def test_too_little_text_is_told(tmp_path: Path, kind: Learned, lines: list[str]) -> None:
    """In one line, with SentencePiece's reason; and no model is written."""
    corpus = write_pairs(tmp_path / "little.tsv", lines, lines)
    with pytest.raises(
        CorpusError, match=rf"^SentencePiece cannot train {kind} pieces on .*little\.tsv: \S.*$"
    ) as told:
        learn(tmp_path, kind, corpus)
    assert "\n" not in str(told.value)
    assert [path.name for path in tmp_path.iterdir()] == ["little.tsv"]


@LEARNED
def test_fewer_pieces_than_there_are_bytes_are_told(tmp_path: Path, text: Path, kind: Learned) -> None:
    with pytest.raises(CorpusError, match="SentencePiece cannot train"):
        learn(tmp_path, kind, text, vocabulary_size=100)


# --- of a corpus -----------------------------------------------------------------------------------------------------


@LEARNED
def test_symbols_are_cut_into_bytes_and_nothing_else_changes(tmp_path: Path, kind: Learned) -> None:
    sources = [f"{text} {symbol}" for text, symbol in zip(made_up(300, 1), "♥°▁😀" * 75, strict=True)]
    path = learn(tmp_path, kind, write_pairs(tmp_path / "text.tsv", sources, sources), vocabulary_size=SIZE + 10)
    before, after = Tokenizer.load(path), Tokenizer(with_symbols_as_bytes(path.read_bytes()))
    values = after.byte_values
    for symbol in "♥😀":
        assert not any(token in values for token in before.encode_ids(symbol))
        assert bytes(values[token] for token in after.encode_ids(symbol) if token in values).decode() == symbol
    for text in (*made_up(50, 1), "20 °C", "a  b"):
        assert after.encode_ids(text) == before.encode_ids(text)
    for text in sources[:8]:
        assert after.decode(after.encode_ids(text)).text == before.decode(before.encode_ids(text)).text
    assert with_symbols_as_bytes(with_symbols_as_bytes(path.read_bytes())) == with_symbols_as_bytes(path.read_bytes())


def learned_config(folder: Path, text: Path, kind: str, shared: bool) -> Config:
    """The text's first 290 pairs to train on."""
    sentences = (made_up(300, seed) for seed in (1, 2))
    pairs = list(zip(*sentences, strict=True))
    parts = {"training": pairs[:290], "validation": pairs[290:295], "test": pairs[295:]}
    files = {part: write_pairs(folder / f"{part}.tsv", *map(list, zip(*parts[part], strict=True))) for part in parts}
    corpus = {"kind": "files", **{part: [{"tsv": str(path)}] for part, path in files.items()}}
    side = {"kind": kind} | ({"vocabulary_size": SIZE} if kind in ("unigram", "bpe") else {})
    tokenizers = {"source": side, "target": side, "shared": shared}
    return Config.model_validate(tiny_values(folder) | {"corpus": corpus, "tokenizers": tokenizers})


@pytest.mark.parametrize("kind", ["char", "word", "unigram", "bpe"])
def test_a_shared_tokenizer_is_one_file_twice(tmp_path: Path, text: Path, kind: str) -> None:
    """Of the text of both sides."""
    corpus = prepare(learned_config(tmp_path, text, kind, shared=True), ignore_progress)
    assert corpus.tokenizer_path("source").read_bytes() == corpus.tokenizer_path("target").read_bytes()
    assert corpus.hashes["source.spm"] == corpus.hashes["target.spm"]
    arrays = corpus.arrays("training")
    for side in ("source", "target"):
        assert UNK_ID not in getattr(arrays, side).ids
    if kind in ("unigram", "bpe"):
        return
    apart = prepare(learned_config(tmp_path, text, kind, shared=False), ignore_progress)
    known = {side: apart.tokenizer(side).vocabulary_size for side in ("source", "target")}
    assert corpus.tokenizer("source").vocabulary_size >= max(known.values())
    assert kind == "char" or apart.hashes["source.spm"] != apart.hashes["target.spm"]
