"""What ``prepare`` writes, when it writes again, and what ``Corpus`` refuses."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.bundle.tokenizer import EOS_ID, UNK_ID, Tokenizer
from tests.training.conftest import ignore_progress, tiny_config
from training import corpus as corpus_module
from training.config import Config, TaskCorpus
from training.corpus import SIDES, Corpus, prepare
from training.errors import CorpusError
from training.tasks import TASKS, Example, Task, date_variations, dates
from training.tasks.dates import DateFormatter

PARTS = {"training": 300, "validation": 30, "test": 20}
FILES = {
    *(f"{part}.tsv" for part in PARTS),
    *(f"{side}.spm" for side in SIDES),
    "training.lines.npy",
    *(f"{p}.{side}.{kind}.npy" for p in ("training", "validation") for side in SIDES for kind in ("ids", "offsets")),
    "done.json",
}
BOTH = pytest.mark.parametrize("name", ["reverse_corpus", "dates_corpus"])


def contents(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Every file's time of writing and bytes."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in directory.iterdir()}


def text(directory: Path, part: str) -> str:
    return (directory / f"{part}.tsv").read_text(encoding="utf-8")


@pytest.fixture
def copy(reverse_corpus: Corpus, tmp_path: Path) -> Path:
    """A prepared corpus that a test may damage, where ``tiny_config(tmp_path)`` looks for it."""
    return Path(shutil.copytree(reverse_corpus.directory, tmp_path / "data"))


# --- what is written -------------------------------------------------------------------------------------------------


def test_every_file_is_there_and_no_other(reverse_corpus: Corpus) -> None:
    assert {path.name for path in reverse_corpus.directory.iterdir()} == FILES


@pytest.mark.parametrize(("part", "count"), PARTS.items())
def test_a_part_has_the_pairs_that_were_asked_for(reverse_corpus: Corpus, part: str, count: int) -> None:
    examples = list(reverse_corpus.examples(part))
    assert len(examples) == count
    assert all(example.target.split(" ") == example.source.split(" ")[::-1] for example in examples)


@pytest.mark.usefixtures("quick_formatters")
@BOTH
def test_the_parts_are_one_stream_in_order(request: pytest.FixtureRequest, name: str) -> None:
    """With their annotations, and of ``training`` only what is not held out."""
    corpus: Corpus = request.getfixturevalue(name)
    validation, test, training = (list(corpus.examples(part)) for part in ("validation", "test", "training"))
    held_out = {example.source for example in (*validation, *test)}
    stream = TASKS["reverse" if name == "reverse_corpus" else "dates"].examples(3)
    assert list(itertools.islice(stream, len(validation) + len(test))) == validation + test
    unseen = (example for example in stream if example.source not in held_out)
    assert list(itertools.islice(unseen, len(training))) == training


def test_no_held_out_source_is_in_training(tmp_path: Path) -> None:
    sizes = {"training_pairs": 1000, "validation_pairs": 200, "test_pairs": 200}
    corpus = prepare(tiny_config(tmp_path, corpus=sizes), ignore_progress)
    held_out = {example.source for part in ("validation", "test") for example in corpus.examples(part)}
    drawn = [example.source for example in itertools.islice(TASKS["reverse"].examples(3), 1400)][400:]
    assert held_out & set(drawn), "the task repeats itself too seldom for this test to say anything"
    training = [example.source for example in corpus.examples("training")]
    assert len(training) == 1000
    assert not held_out & set(training)


def test_the_held_out_parts_do_not_depend_on_the_size_of_training(reverse_corpus: Corpus, tmp_path: Path) -> None:
    smaller = prepare(tiny_config(tmp_path, corpus={"training_pairs": 50}), ignore_progress)
    for part in ("validation", "test"):
        assert text(smaller.directory, part) == text(reverse_corpus.directory, part)
    assert text(reverse_corpus.directory, "training").startswith(text(smaller.directory, "training"))


@BOTH
@pytest.mark.parametrize("part", ["training", "validation"])
def test_arrays_are_the_ids_of_the_text(request: pytest.FixtureRequest, name: str, part: str) -> None:
    corpus: Corpus = request.getfixturevalue(name)
    arrays, examples = corpus.arrays(part), list(corpus.examples(part))
    assert len(arrays) == len(arrays.target) == len(examples)
    for side in SIDES:
        tokens, tokenizer = getattr(arrays, side), Tokenizer.load(corpus.tokenizer_path(side))
        assert (tokens.ids.dtype, tokens.offsets.dtype) == (np.int32, np.int64)
        assert isinstance(tokens.ids, np.memmap)
        wanted = [tokenizer.encode_ids(getattr(example, side)) for example in examples]
        assert [row.tolist() for row in (tokens[i] for i in range(len(tokens)))] == wanted
        assert tokens.lengths.tolist() == [len(ids) for ids in wanted]
        assert all(ids[-1] == EOS_ID for ids in wanted)


@pytest.mark.usefixtures("quick_formatters")
@BOTH
def test_any_training_text_is_found_by_its_number(request: pytest.FixtureRequest, name: str) -> None:
    """Of characters of one byte and of several."""
    corpus: Corpus = request.getfixturevalue(name)
    texts, examples = corpus.training_texts(), list(corpus.examples("training"))
    order = random.Random(1).sample(range(len(examples)), len(examples))
    assert [texts[pair] for pair in order] == [examples[pair] for pair in order]
    with pytest.raises(IndexError):
        texts[len(examples)]


def test_hashes_are_those_of_the_files(reverse_corpus: Corpus) -> None:
    wanted = {
        name: hashlib.sha256((reverse_corpus.directory / name).read_bytes()).hexdigest()
        for name in FILES - {"done.json"}
    }
    assert reverse_corpus.hashes == wanted


def test_the_same_settings_write_the_same_bytes(reverse_corpus: Corpus, tmp_path: Path) -> None:
    assert prepare(tiny_config(tmp_path), ignore_progress).hashes == reverse_corpus.hashes


# --- the sentences before --------------------------------------------------------------------------------------------

CONTEXT_FILES = {
    f"{part}.context.{kind}.npy" for part in ("training", "validation") for kind in ("ids", "offsets", "sentences")
}


def stories_config(run_directory: Path, **changes: object) -> Config:
    """Of dates that a story tells, in characters."""
    characters = {"source": {"kind": "char"}, "target": {"kind": "char"}}
    return tiny_config(run_directory, corpus={"task": "dates-in-context"} | changes, tokenizers=characters)


@pytest.fixture(scope="module")
def stories_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Shared: not to be written to."""
    return prepare(stories_config(tmp_path_factory.mktemp("stories")), ignore_progress)


def test_a_task_of_documents_has_arrays_of_its_own(stories_corpus: Corpus, reverse_corpus: Corpus) -> None:
    assert {path.name for path in stories_corpus.directory.iterdir()} == FILES | CONTEXT_FILES
    assert stories_corpus.hashes.keys() == (FILES | CONTEXT_FILES) - {"done.json"}
    assert reverse_corpus.arrays("training").context is None


@pytest.mark.parametrize(("part", "count"), PARTS.items())
def test_a_story_comes_back_whole(stories_corpus: Corpus, part: str, count: int) -> None:
    found = list(stories_corpus.examples(part))
    assert len(found) == count
    drawn = set(itertools.islice(TASKS["dates-in-context"].examples(3), sum(PARTS.values()) + 50))
    assert set(found) <= drawn
    assert {1, 2, 3} <= {len(example.context) for example in found}


@pytest.mark.parametrize("part", ["training", "validation"])
def test_the_arrays_of_a_context_are_the_ids_of_its_text(stories_corpus: Corpus, part: str) -> None:
    arrays, examples = stories_corpus.arrays(part), list(stories_corpus.examples(part))
    context, tokenizer = arrays.context, stories_corpus.tokenizer("source")
    assert context is not None
    assert context.most == 3
    assert context.sentences.ids.dtype == np.int32
    assert context.counts.dtype == np.int64
    assert isinstance(context.sentences.ids, np.memmap)
    assert len(context.counts) == len(arrays) + 1
    assert len(context.sentences) == context.counts[-1] == sum(len(example.context) for example in examples)
    for place, example in enumerate(examples):
        wanted = [tokenizer.encode_ids(sentence) for sentence in example.context]
        assert [ids.tolist() for ids in context[place]] == wanted
        assert all(ids[-1] == EOS_ID for ids in wanted)
        assert arrays.source[place].tolist() == tokenizer.encode_ids(example.source)


def test_what_only_a_context_says_is_in_the_vocabulary(stories_corpus: Corpus) -> None:
    examples = list(stories_corpus.examples("training"))
    of_sources = {character for example in examples for character in example.source}
    of_contexts = {character for example in examples for text in example.context for character in text}
    assert of_contexts - of_sources, "the task's contexts say nothing of their own, so this test says nothing"
    context, tokenizer = stories_corpus.arrays("training").context, stories_corpus.tokenizer("source")
    assert context is not None
    assert UNK_ID not in context.sentences.ids
    assert set(tokenizer.decode(context.sentences.ids.tolist()).text) == of_contexts


def test_words_that_only_a_context_has_are_in_the_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(_seed: int) -> Iterator[Example]:
        return (Example(str(number), "1", "", ("two three", "four")) for number in itertools.count())

    task = Task(stream, lambda *_: [], context_sentences=2)
    monkeypatch.setitem(TASKS, "reverse", task)
    corpus = prepare(tiny_config(tmp_path), ignore_progress)
    assert UNK_ID not in corpus.tokenizer("source").encode_ids("two three four")
    assert UNK_ID in corpus.tokenizer("target").encode_ids("four")


def test_stories_of_which_none_has_a_context_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An array without a number in it has no memory to map."""

    def stream(_seed: int) -> Iterator[Example]:
        return (Example(str(number), "1", "") for number in itertools.count())

    monkeypatch.setitem(TASKS, "reverse", Task(stream, lambda *_: [], context_sentences=2))
    context = prepare(tiny_config(tmp_path), ignore_progress).arrays("validation").context
    assert context is not None
    assert [context[place] for place in range(30)] == [[]] * 30


@pytest.mark.parametrize("sentence", ["a\tb", "a\nb", "a\r"])
def test_a_sentence_before_that_no_line_can_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sentence: str
) -> None:
    task = Task(lambda _seed: itertools.repeat(Example("1", "1", "", ("b", sentence))), lambda *_: [])
    monkeypatch.setitem(TASKS, "reverse", task)
    with pytest.raises(CorpusError, match="a tab or a line break in Example"):
        prepare(tiny_config(tmp_path), ignore_progress)


# --- variations ------------------------------------------------------------------------------------------------------


def dates_config(run_directory: Path, **changes: object) -> Config:
    """That of ``dates_corpus``, but for some keys of the corpus."""
    sizes = {"task": "dates", "training_pairs": 600}
    characters = {"source": {"kind": "char"}, "target": {"kind": "char"}}
    return tiny_config(run_directory, corpus=sizes | changes, tokenizers=characters)


@pytest.mark.usefixtures("quick_formatters")
def test_a_share_of_training_is_varied_and_nothing_of_validation_and_test(
    dates_corpus: Corpus, formatters: list[DateFormatter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(date_variations, "all_formatters", lambda: formatters)
    config = dates_config(tmp_path, varied_share=0.4)
    corpus = prepare(config, ignore_progress)
    with pytest.raises(CorpusError, match="prepared from another corpus"):
        dates_corpus.check(config)
    for part in ("validation", "test"):
        assert text(corpus.directory, part) == text(dates_corpus.directory, part)
    training = list(corpus.examples("training"))
    varied = list(itertools.islice(date_variations.variations(3), 600))
    taken = [example for example in training if example in set(varied)]
    assert len(training) == 600
    assert taken == varied[: len(taken)], "in the order of their stream, none left out"
    assert 0.35 < len(taken) / 600 < 0.45
    rest = [example for example in training if example not in set(varied)]
    plain = list(dates_corpus.examples("training"))
    assert rest == plain[: len(rest)]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_variations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Told apart by their annotation; those whose source is held out are left out too."""
    numbers = [str(number) for number in range(60)]

    def stream(annotation: str, seed: int) -> Iterator[Example]:
        generator = random.Random(f"{annotation}{seed}")
        while True:
            number = generator.choice(numbers)
            yield Example(number, number, annotation)

    task = Task(partial(stream, "plain"), lambda *_: [], variations=partial(stream, "varied"))
    monkeypatch.setitem(TASKS, "dates", task)
    sizes = {"training_pairs": 2000, "validation_pairs": 20, "test_pairs": 20, "varied_share": share}
    corpus = prepare(dates_config(tmp_path, **sizes), ignore_progress)
    held_out = [example for part in ("validation", "test") for example in corpus.examples(part)]
    assert {example.annotation for example in held_out} == {"plain"}
    training = list(corpus.examples("training"))
    assert len(training) == 2000
    assert not {example.source for example in training} & {example.source for example in held_out}
    varied = sum(example.annotation == "varied" for example in training) / 2000
    assert varied == share if share in (0.0, 1.0) else abs(varied - share) < 0.03


def test_a_seed_decides_which_are_varied(
    formatters: list[DateFormatter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (dates, date_variations):
        monkeypatch.setattr(module, "all_formatters", lambda: formatters[::50])
    widespread = [str(formatter.locale) for formatter in formatters[::50]]
    monkeypatch.setattr(date_variations, "_WIDESPREAD", tuple(widespread))
    hashes = [
        prepare(dates_config(tmp_path / name, varied_share=0.5, seed=seed), ignore_progress).hashes["training.tsv"]
        for name, seed in (("one", 3), ("same", 3), ("other", 4))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


# --- writing again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"training": {"updates": 7}, "model": {"decoder_size": 5}, "name": "other"}])
def test_a_finished_corpus_of_the_same_settings_is_kept(tmp_path: Path, copy: Path, changes: dict[str, object]) -> None:
    before, told = contents(copy), list[str]()
    corpus = prepare(tiny_config(tmp_path, **changes), told.append)  # type: ignore[arg-type]
    assert contents(copy) == before
    assert told == [f"{copy} is already prepared"]
    assert len(corpus.arrays("training")) == 300


CHANGES: dict[str, dict[str, Any]] = {
    "seed": {"corpus": {"seed": 4}},
    "size": {"corpus": {"training_pairs": 299}},
    "tokenizer": {"tokenizers": {"source": {"kind": "char"}}},
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_settings_are_prepared_anew(tmp_path: Path, copy: Path, change: str) -> None:
    before = contents(copy)
    config = tiny_config(tmp_path, **CHANGES[change])
    corpus = prepare(config, ignore_progress)
    corpus.check(config)
    assert all(written[0] > before[name][0] for name, written in contents(copy).items())
    assert corpus.hashes["training.source.ids.npy"] != hashlib.sha256(before["training.source.ids.npy"][1]).hexdigest()
    assert isinstance(config.corpus, TaskCorpus)
    assert len(corpus.arrays("training")) == config.corpus.training_pairs == len(list(corpus.examples("training")))


def test_a_corpus_that_is_not_finished_leaves_the_old_one(
    tmp_path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Preparing again with other settings is stopped half-way: a run of the old ones can go on."""

    def stop(*_arguments: object) -> None:
        raise KeyboardInterrupt

    before = contents(copy)
    monkeypatch.setattr(corpus_module, "train_tokenizer", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(tiny_config(tmp_path, corpus={"seed": 4}), ignore_progress)
    monkeypatch.undo()
    assert contents(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == ["data"]
    again = prepare(tiny_config(tmp_path), ignore_progress)
    assert again.hashes.keys() == FILES - {"done.json"}
    assert len(list(again.examples("training"))) == len(again.arrays("training")) == 300


def set_marker(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """What ``done.json`` says, changed in its place."""
    done = json.loads((directory / "done.json").read_text(encoding="utf-8"))
    change(done)
    (directory / "done.json").write_text(json.dumps(done), encoding="utf-8")


@pytest.mark.parametrize("keys", [["varied_share"], ["seed"], ["varied_share", "seed"]])
def test_a_corpus_of_an_older_heed_had_the_defaults_of_later_keys(tmp_path: Path, copy: Path, keys: list[str]) -> None:
    """It is kept where the config has them too, and refused where it has others."""
    set_marker(copy, lambda done: [done["prepared_from"]["corpus"].pop(key) for key in keys])
    before = contents(copy)
    defaults = {key: TaskCorpus.model_fields[key].default for key in keys}
    same = tiny_config(tmp_path, corpus=defaults)
    Corpus(copy).check(same)
    prepare(same, ignore_progress)
    assert contents(copy) == before
    other = tiny_config(tmp_path, corpus=defaults | {"seed": 2})
    with pytest.raises(CorpusError, match="prepared from another corpus"):
        Corpus(copy).check(other)
    prepare(other, ignore_progress).check(other)
    assert contents(copy) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda done: done["prepared_from"]["corpus"].update(seed=4),
        lambda done: done["prepared_from"]["corpus"].pop("training_pairs"),
        lambda done: done["prepared_from"]["corpus"].update(colour="red"),
        lambda done: done["prepared_from"]["corpus"].update(task="poetry"),
        lambda done: done["prepared_from"]["tokenizers"].update(source={"kind": "char"}),
        lambda done: done["prepared_from"].pop("tokenizers"),
        lambda done: done["prepared_from"].pop("corpus"),
        lambda done: done["prepared_from"].update(more={}),
    ],
)
def test_another_value_without_a_default_or_with_one_is_another_corpus(
    tmp_path: Path, copy: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    set_marker(copy, change)
    config = tiny_config(tmp_path)
    with pytest.raises(CorpusError, match="prepared from another corpus"):
        Corpus(copy).check(config)
    prepare(config, ignore_progress).check(config)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["1\t2", "1\n2", "1\r"])
def test_a_text_that_no_line_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    task = Task(lambda _seed: itertools.repeat(Example(source, "1", "")), lambda *_: [])
    monkeypatch.setitem(TASKS, "reverse", task)
    with pytest.raises(CorpusError, match="a tab or a line break in Example"):
        prepare(tiny_config(tmp_path), ignore_progress)
    with pytest.raises(CorpusError, match="no prepared corpus"):
        Corpus(tmp_path / "data")


@pytest.mark.parametrize("content", ["", "{", "{}", "[]"])
def test_a_damaged_marker_is_told_and_prepared_anew(tmp_path: Path, copy: Path, content: str) -> None:
    (copy / "done.json").write_text(content)
    with pytest.raises(CorpusError, match=r"done\.json is damaged: run `heed-train prepare CONFIG` again"):
        Corpus(copy)
    assert len(prepare(tiny_config(tmp_path), ignore_progress).arrays("training")) == 300


def test_a_tokenizer_that_is_gone_or_damaged_is_told(copy: Path) -> None:
    (copy / "source.spm").write_bytes(b"something else")
    (copy / "target.spm").unlink()
    for side in ("source", "target"):
        with pytest.raises(CorpusError, match=rf"cannot read .*{side}\.spm"):
            Corpus(copy).tokenizer(side)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CorpusError, match="cannot write the folder"):
        prepare(tiny_config(tmp_path / "file"), ignore_progress)


@pytest.mark.parametrize("exists", [False, True])
def test_a_directory_without_a_corpus_is_refused(tmp_path: Path, exists: bool) -> None:
    directory = tmp_path / "data"
    if exists:
        directory.mkdir()
    with pytest.raises(CorpusError, match=r"no prepared corpus in .*data: run `heed-train prepare CONFIG` first"):
        Corpus(directory)


@pytest.mark.parametrize("change", CHANGES)
def test_a_corpus_of_other_settings_is_refused(reverse_corpus: Corpus, tmp_path: Path, change: str) -> None:
    reverse_corpus.check(tiny_config(tmp_path))
    other: Config = tiny_config(tmp_path, **CHANGES[change])
    with pytest.raises(CorpusError, match="prepared from another corpus or tokenizer setting"):
        reverse_corpus.check(other)


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [([0], [0], "validation: 0 source and 0 target"), ([0, 1], [0, 1, 2], "validation: 1 source and 2 target")],
)
def test_an_empty_or_uneven_part_is_refused(copy: Path, source: list[int], target: list[int], told: str) -> None:
    for side, offsets in (("source", source), ("target", target)):
        np.save(copy / f"validation.{side}.offsets.npy", np.array(offsets, dtype=np.int64))
        np.save(copy / f"validation.{side}.ids.npy", np.arange(offsets[-1] + 1, dtype=np.int32))
    with pytest.raises(CorpusError, match=told):
        Corpus(copy).arrays("validation")


def test_the_marker_says_what_the_corpus_was_made_from(reverse_corpus: Corpus, tmp_path: Path) -> None:
    marker = json.loads((reverse_corpus.directory / "done.json").read_text(encoding="utf-8"))
    config = tiny_config(tmp_path)
    assert marker["prepared_from"]["corpus"] == config.corpus.model_dump(mode="json")
    assert marker["prepared_from"]["tokenizers"] == config.tokenizers.model_dump(mode="json")
