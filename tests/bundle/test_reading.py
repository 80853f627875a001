"""Capitals and quotation marks: what is read, where it stands in the text, and what is raised again."""

from __future__ import annotations

import itertools
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bundle.reading import in_capitals, plain_marks, raised, read, read_ids, truecased, with_spaced_marks
from service.bundle.repository import Bundle
from service.bundle.tokenizer import EOS_PIECE, Token, TokenizedText, Tokenizer
from training.config import TokenizerConfig
from training.tokenizers import train_tokenizer

#: A vocabulary, the most frequent first: its numbers are in this order.
WORDS = (
    "das ist die ich Tom Ich sehr wichtig who Haus USA TV tv don I schön Straße straße tom Wichtig nie us US WHO Maria"
)
# Capitals, letters that become two in the other case, marks of every style, combining and unseen ones, other scripts.
TEXTS = st.text(
    alphabet=st.sampled_from("abc ABCDÄÉ ßİŉΣǅªA\u0308\u200d年א „“”«»\"'’‘‚…(-/._1,!\u00a0👍🏽"),
    min_size=1,
    max_size=30,
)


class Words(Tokenizer):
    """One that knows ``WORDS``, whose numbers say how frequent they are; a word model's are sorted."""

    def piece_id(self, piece: str) -> int | None:
        known = WORDS.split()
        return known.index(piece[1:]) if piece[1:] in known else None


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("words")
    (folder / "text.tsv").write_text(f"{WORDS}\t{WORDS}\t\n", encoding="utf-8")
    train_tokenizer(TokenizerConfig(kind="word"), folder / "text.tsv", [0], folder / "words.spm")
    return Words.load(folder / "words.spm")


@pytest.mark.parametrize(
    "text", ["DAS IST WICHTIG!", "USA", "OK.", "DIE STRAßE", "PRAÇA 1ª RUA", "A B", "U\u0308BER", "ΣΟΦΟΣ"]
)
def test_a_text_is_in_capitals_with_two_of_them_and_no_other_letter(text: str) -> None:
    assert in_capitals(text)


@pytest.mark.parametrize(
    "text", ["", "I", "A 1", "Das", "12", "ß", "我用USB", "مرحبا USA", "כן, USB", "iPHONE", "ǅ AB", "aB"]
)
def test_others_are_not(text: str) -> None:
    assert not in_capitals(text)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("DAS IST SEHR WICHTIG", "Das ist sehr wichtig"),  # it begins with a capital
        ("IST TOM ICH?", "Ist Tom ich?"),  # a name; a word that often begins a sentence is none
        ("DAS IST UNICEF", "Das ist unicef"),
        ("DAS IST DIE EU", "Das ist die EU"),  # unknown and short: nothing says what it is
        ("DAS IST TV", "Das ist TV"),  # with capitals the more frequent
        ("I DON'T", "I don't"),
        ("TOM’S", "Tom’s"),
        ("DIE STRAßE IST", "Die straße ist"),
        ("WHO IST DAS", "Who ist das"),
        ("Das ist SEHR WICHTIG", "Das ist sehr wichtig"),
        ("ein HAUS", "ein Haus"),  # the one that there is
        ("sehr SCHÖN", "sehr schön"),
        ("sehr " + unicodedata.normalize("NFD", "SCHÖN"), "sehr " + unicodedata.normalize("NFD", "schön")),
        ("you DON'T", "you don't"),
        ("die USA, die WHO, NIE, US", "die USA, die WHO, NIE, US"),  # short: may be another word
        ("die UNICEF", "die UNICEF"),  # unknown
        ("die LEBENSGEFAHR", "die lebensgefahr"),  # unknown, and too long for an abbreviation
        ("UNICEF", "UNICEF"),
        ("UNICEF, EU", "UNICEF, EU"),  # no sentence: no word of it is known
        ("SEHR!", "Sehr!"),
        ("NIE!", "Nie!"),
        ("我用USB", "我用USB"),
        (
            "HAUS.md SEHR_HAUS {WICHTIG} a/SEHR SEHR@HAUS COVID-19",
            "HAUS.md SEHR_HAUS {WICHTIG} a/SEHR SEHR@HAUS COVID-19",
        ),
    ],
)
def test_words_in_capitals_are_as_the_vocabulary_has_them(words: Tokenizer, text: str, plain: str) -> None:
    assert truecased(text, words) == plain


@pytest.mark.parametrize(
    ("text", "spaced"),
    [
        ("„Haus“", '" Haus "'),
        ("Das «Haus», sehr", 'Das " Haus ", sehr'),
        ("»Haus«", '" Haus "'),
        ('("Haus")', '(" Haus ")'),
        ('Er:"Ja"', 'Er:" Ja "'),
        ('—"Ja"—', '—" Ja "—'),
        ('"¿Qué?"', '" ¿Qué? "'),
        ("„-5 Grad“", '" -5 Grad "'),
        ('"...und so"', '" ...und so "'),
        ("„‚Ja‘, sagte er“", "\" 'Ja', sagte er \""),
        ("er rief“Ja”", 'er rief"Ja "'),
        ('5" und', '5 " und'),
        ('sehr"wichtig', 'sehr"wichtig'),
        ("“", '"'),
        ('" a "', '" a "'),
        ("Tom’s", "Tom's"),
        ("Kennst du ‚Das Haus‘?", 'Kennst du " Das Haus "?'),
        ("Do you know 'Tom's House' or ‘I don’t’?", 'Do you know " Tom\'s House " or " I don\'t "?'),
        ("'Come!' she said.", '" Come! " she said.'),
        ("He said \"she is 'nice' to us\".", "He said \" she is 'nice' to us \"."),
        ("rock 'n' roll, 'cause the boys' room", "rock 'n' roll, 'cause the boys' room"),
        ("'I know the boys' names,' he said.", "'I know the boys' names,' he said."),
        ("In '99 the boys' team, Komm 'rein, ich hab' Zeit", "In '99 the boys' team, Komm 'rein, ich hab' Zeit"),
        ("the boys' and the girls' room, 5' 10'", "the boys' and the girls' room, 5' 10'"),
        ("in the '90s, 'ne Idee, die Thomas' ist", "in the '90s, 'ne Idee, die Thomas' ist"),
    ],
)
def test_marks_have_their_spaces_within(text: str, spaced: str) -> None:
    assert with_spaced_marks(text) == spaced
    assert with_spaced_marks(spaced) == spaced


def test_what_is_read_has_both(words: Tokenizer) -> None:
    text = "«SEHR WICHTIG», sagte Tom."
    *tokens, end = read(text, words).tokens
    assert "".join(token.piece for token in tokens).replace("▁", " ").strip() == '" sehr wichtig ", sagte Tom.'
    assert end.piece == EOS_PIECE
    assert read_ids(text, words) == words.encode_ids('" sehr wichtig ", sagte Tom.')


@given(TEXTS)
def test_offsets_count_the_text_as_it_was_sent(letters: Bundle, text: str) -> None:
    tokenized = read(text, letters.source_tokenizer)
    *tokens, end = tokenized.tokens
    assert tokenized.text == text
    assert "".join(text[token.begin : token.end] for token in tokens) == text
    assert (end.begin, end.end) == (len(text), len(text))
    for token in tokens:
        if token.piece in tuple("abc"):
            assert text[token.begin : token.end] in (token.piece, token.piece.upper())


@given(TEXTS)
def test_words_do_not_overlap(words: Tokenizer, text: str) -> None:
    tokens = read(text, words).tokens
    assert all(before.end <= after.begin for before, after in itertools.pairwise(tokens))
    assert read_ids(text, words) == [token.id for token in tokens]


@given(TEXTS)
def test_truecasing_and_plain_marks_keep_every_place(words: Tokenizer, text: str) -> None:
    assert len(plain_marks(text)) == len(text)
    read = truecased(text, words)
    assert [letter.upper() for letter in read] == [letter.upper() for letter in text]


@given(TEXTS)
def test_spaces_beside_marks_are_all_that_comes_in(text: str) -> None:
    assert with_spaced_marks(text).replace(" ", "") == plain_marks(text).replace(" ", "")


@given(st.lists(st.text(alphabet="ab ßŉ.é", min_size=1, max_size=4), max_size=6))
def test_a_raised_translation_has_every_token_raised_in_its_place(pieces: list[str]) -> None:
    ends = [0, *itertools.accumulate(map(len, pieces))]
    tokens = [Token(7, piece, begin, begin + len(piece)) for piece, begin in zip(pieces, ends, strict=False)]
    found = raised(TokenizedText("".join(pieces), tuple(tokens)))
    assert found.text == "".join(pieces).upper()
    assert [found.text[token.begin : token.end] for token in found.tokens] == [piece.upper() for piece in pieces]
    assert [token.piece for token in found.tokens] == pieces


def test_a_bundle_reads_as_its_manifest_says(letters: Bundle) -> None:
    plainly = replace(letters, manifest=letters.manifest.model_copy(update={"reads_plainly": True}))
    assert plainly.encode("ABC CAB «HEAD»").ids == plainly.encode_ids("ABC CAB «HEAD»")
    assert letters.encode("ABC CAB").ids == letters.encode_ids("ABC CAB")
    assert plainly.encode_ids("bad CABBAGE") == letters.encode_ids("bad cabbage") != letters.encode_ids("bad CABBAGE")
    assert [plainly.answers_in_capitals(text) for text in ("ABC", "Abc")] == [True, False]
    assert not letters.answers_in_capitals("ABC")
    ids = letters.target_tokenizer.encode_ids("abc")
    assert (plainly.decode(ids).text, plainly.decode(ids, capitals=True).text) == ("abc", "ABC")


@pytest.mark.parametrize(
    ("begun", "kept"), [("", True), ("ABC", True), ("A", True), ("aBc", False), ("GROẞARTIG", False)]
)
def test_an_answer_is_in_capitals_only_if_what_was_given_of_it_is(letters: Bundle, begun: str, kept: bool) -> None:
    plainly = replace(letters, manifest=letters.manifest.model_copy(update={"reads_plainly": True}))
    assert plainly.answers_in_capitals("ABC CAB", begun) is kept
    assert not plainly.answers_in_capitals("abc", begun)


def test_a_piece_before_the_text_stays_before_it(words: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "text.tsv").write_text(f"{WORDS}\t{WORDS}\t\n", encoding="utf-8")
    config = TokenizerConfig(kind="word")
    told = train_tokenizer(config, tmp_path / "text.tsv", [0], tmp_path / "told.spm", ["<2de>"])
    first, *_, word, _ = read("das ist «sehr", told, "<2de>").tokens
    assert (first.piece, first.special, first.begin, first.end) == ("<2de>", True, 0, 0)
    assert (word.piece.removeprefix("▁"), word.begin, word.end) == ("sehr", 9, 13)
