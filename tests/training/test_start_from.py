"""A run that begins with another's tokenizers and weights (fine-tuning)."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from tests.conftest import edit_manifest
from tests.training.conftest import ignore_progress, tiny_config, tiny_values
from training.checkpoint import load_start
from training.config import Config
from training.corpus import Corpus, prepare
from training.errors import CheckpointError, CorpusError
from training.export import export_bundle
from training.trainer import Trainer, load_weights


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A finished run. Shared: not to be written to."""
    config = tiny_config(tmp_path_factory.mktemp("first"), training={"updates": 6})
    assert trainer(config, prepare(config, ignore_progress)).train()
    return config


def trainer(config: Config, corpus: Corpus) -> Trainer:
    return Trainer(config, corpus, Console(file=io.StringIO()))


def second(folder: Path, first: Config, **changes: Any) -> Config:
    """A run on other text that starts from the first."""
    corpus = {"corpus": {"seed": 99}} | changes
    return tiny_config(folder / "second", start_from=str(first.run_directory), **corpus)


def test_it_begins_with_the_weights_and_cuts_text_alike(first: Config, tmp_path: Path) -> None:
    config = second(tmp_path, first)
    corpus, before = prepare(config, ignore_progress), Corpus(first.run_directory / "data")
    for side in ("source", "target"):
        assert corpus.tokenizer_path(side).read_bytes() == before.tokenizer_path(side).read_bytes()
    assert corpus.hashes["training.tsv"] != before.hashes["training.tsv"]
    best = torch.load(first.run_directory / "best.pt", weights_only=True)["model"]
    begun = trainer(config, corpus).model.state_dict()
    assert begun.keys() == best.keys()
    assert all(torch.equal(begun[name], best[name]) for name in best)


def test_once_it_has_begun_it_continues_itself(first: Config, tmp_path: Path) -> None:
    config = second(tmp_path, first, training={"updates": 4})
    corpus = prepare(config, ignore_progress)
    assert trainer(config, corpus).train()
    last = torch.load(config.run_directory / "last.pt", weights_only=True)["model"]
    again = trainer(config, corpus).model.state_dict()
    assert all(torch.equal(again[name], last[name]) for name in last)


def test_the_start_is_exported_as_it_is_and_nothing_need_be_trained(first: Config, tmp_path: Path) -> None:
    config = second(tmp_path, first, export={"weights": "start"})
    model, updates = load_weights(config, prepare(config, ignore_progress))
    best = torch.load(first.run_directory / "best.pt", weights_only=True)["model"]
    assert updates == [0]
    assert not model.training
    for name, found in model.state_dict().items():
        assert torch.equal(found, best[name]), name


@pytest.mark.parametrize("share", [0.25, 0.0, -2.0])
def test_it_may_begin_between_the_start_and_another_or_past_it(first: Config, tmp_path: Path, share: float) -> None:
    other = tiny_config(tmp_path / "other", training={"updates": 3, "seed": 8})
    assert trainer(other, prepare(other, ignore_progress)).train()
    line = {"between": str(other.run_directory), "share": share}
    config = second(tmp_path, first, start_interpolation=line)
    corpus = prepare(config, ignore_progress)
    ends = [torch.load(run.run_directory / "best.pt", weights_only=True)["model"] for run in (first, other)]
    begun = trainer(config, corpus).model.state_dict()
    for name, tensor in begun.items():
        torch.testing.assert_close(tensor, (1 - share) * ends[0][name] + share * ends[1][name])
    as_start = config.model_copy(update={"export": config.export.model_copy(update={"weights": "start"})})
    exported = load_weights(as_start, corpus)[0].state_dict()
    assert all(torch.equal(exported[name], begun[name]) for name in begun)


def test_what_is_between_a_start_and_another_needs_a_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"start_interpolation is between .* and there is no start_from"):
        tiny_config(tmp_path, start_interpolation={"between": "runs/other", "share": 0.5})


def test_a_start_that_is_none_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"export.weights is start, and there is no start_from"):
        tiny_config(tmp_path, export={"weights": "start"})


def test_a_start_cannot_be_exported_between_itself_and_another(first: Config, tmp_path: Path) -> None:
    between = {"start": str(first.run_directory), "share": 0.5}
    with pytest.raises(ValueError, match=r"export.interpolation is between a run and a start"):
        second(tmp_path, first, export={"weights": "start", "interpolation": between})


def test_a_corpus_of_another_start_is_prepared_anew(first: Config, tmp_path: Path) -> None:
    config = second(tmp_path, first)
    prepare(config, ignore_progress)
    told: list[str] = []
    prepare(config, told.append)
    assert told[-1].endswith("already prepared")
    prepare(config.model_copy(update={"start_from": None}), told.append)
    assert not told[-1].endswith("already prepared")


def test_tokenizers_of_other_settings_are_refused(first: Config, tmp_path: Path) -> None:
    other = {"source": {"kind": "char"}, "target": {"kind": "char"}}
    config = second(tmp_path, first, tokenizers=other)
    with pytest.raises(CorpusError, match=r"start_from: the tokenizers of .* are of other settings"):
        prepare(config, ignore_progress)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"embedding_size": 9}, "embedding_size: 8 there, 9 here"),
        ({"input_feeding": True}, "input_feeding: False there, True here"),
    ],
)
def test_weights_of_another_model_are_refused(
    first: Config, tmp_path: Path, change: dict[str, object], told: str
) -> None:
    """Of the same shapes too."""
    config = second(tmp_path, first, model=change)
    corpus = prepare(config, ignore_progress)
    with pytest.raises(CheckpointError, match=rf"start_from: .*best\.pt is of another model \(.*{told}"):
        trainer(config, corpus)


def test_the_dropout_may_be_another(first: Config, tmp_path: Path) -> None:
    config = second(tmp_path, first, model={"dropout": 0.3})
    begun = trainer(config, prepare(config, ignore_progress)).model.state_dict()
    best = torch.load(first.run_directory / "best.pt", weights_only=True)["model"]
    assert all(torch.equal(begun[name], best[name]) for name in best)


def test_weights_of_other_tokenizers_are_refused(first: Config) -> None:
    """The run to start from was prepared again after this one's corpus."""
    hashes = Corpus(first.run_directory / "data").hashes | {"source.spm": "0" * 64}
    with pytest.raises(CheckpointError, match=r"is of other tokenizers \(source\.spm differs\)"):
        load_start(first.run_directory / "best.pt", first.model.model_dump(), hashes)


def test_tokenizers_that_changed_are_taken_again(first: Config, tmp_path: Path) -> None:
    started = tiny_config(tmp_path / "first")
    shutil.copytree(first.run_directory, started.run_directory)
    config = second(tmp_path, started)
    before = prepare(config, ignore_progress).hashes
    other = tiny_config(tmp_path / "first", corpus={"training_pairs": 40, "seed": 5})
    prepare(other, ignore_progress)
    told: list[str] = []
    prepare(config, told.append)
    assert "training.tsv changed since" in told[0]
    assert before.keys() == Corpus(config.run_directory / "data").hashes.keys()


# --- of files --------------------------------------------------------------------------------------------------------


def of_files(folder: Path, test: int, start_from: Path | None = None, validation: int = 5, **training: Any) -> Config:
    path = folder / "pairs.tsv"
    path.write_text("".join(f"{i} {i + 1}\t{i + 1} {i}\n" for i in range(90)), encoding="utf-8")
    files = [{"tsv": str(path), **training}]
    corpus = {"kind": "files", "training": files, "held_out": {"validation": 5, "test": test}}
    values = tiny_values(folder / f"run-{test}-{start_from is None}")
    golden = [{"source": "1", "target_language": "de"}] if training else values["export"]["golden_sentences"]
    values |= {"corpus": corpus, "export": values["export"] | {"golden_sentences": golden}}
    values |= {"languages": {"source": ["en"], "target": ["de"]}}
    return Config.model_validate(values | ({} if start_from is None else {"start_from": str(start_from)}))


def test_what_the_first_run_was_trained_on_is_not_held_out(tmp_path: Path) -> None:
    one = of_files(tmp_path, 10)
    prepare(one, ignore_progress)
    prepare(of_files(tmp_path, 10, one.run_directory), ignore_progress)
    refused = of_files(tmp_path, 30, one.run_directory)
    with pytest.raises(CorpusError, match=r"start_from: 20 of the 75 pairs .* was trained on are of the test here"):
        prepare(refused, ignore_progress)
    assert not refused.run_directory.joinpath("data").exists()


def test_nor_is_what_the_other_end_of_an_interpolation_was_trained_on(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    clean, other = of_files(tmp_path, 30), of_files(tmp_path / "other", 10)
    for config in (clean, other):
        prepare(config, ignore_progress)
    run = of_files(tmp_path, 30, clean.run_directory)
    line = {"between": str(other.run_directory), "share": 0.5}
    with pytest.raises(CorpusError, match=r"start_interpolation.between: 20 of the 75 pairs .* are of the test here"):
        prepare(Config.model_validate(run.model_dump(mode="json") | {"start_interpolation": line}), ignore_progress)


def test_that_it_was_trained_on_what_is_validation_is_told(tmp_path: Path) -> None:
    one = of_files(tmp_path, 10)
    first = prepare(one, ignore_progress)
    values = of_files(tmp_path, 10, one.run_directory).model_dump(mode="json")
    parts = {"validation": "training", "test": "test"}  # the first pair of either
    for part, taken in parts.items():
        pair = next(first.examples(taken))
        (tmp_path / f"{part}.tsv").write_text(f"{pair.source}\t{pair.target}\n", encoding="utf-8")
    files = {part: [{"tsv": str(tmp_path / f"{part}.tsv")}] for part in parts}
    values["corpus"] = {"kind": "files", "training": [{"tsv": str(tmp_path / "pairs.tsv")}], **files}
    told: list[str] = []
    prepare(Config.model_validate(values), told.append)
    assert any("start_from: 1 of the 75 pairs that" in line and "are of the validation here" in line for line in told)


def test_a_target_language_that_the_first_run_did_not_know_is_refused(tmp_path: Path) -> None:
    one = of_files(tmp_path, 10)
    prepare(one, ignore_progress)
    with pytest.raises(CorpusError, match=r"start_from: the tokenizers of .* have no <2de>"):
        prepare(of_files(tmp_path, 10, one.run_directory, target_language="de"), ignore_progress)


def test_a_run_that_is_not_there_is_told(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "second", start_from=str(tmp_path / "nowhere"))
    with pytest.raises(CorpusError, match=r"start_from: .*nowhere is neither a run's directory nor a bundle's"):
        prepare(config, ignore_progress)


def of_pieces(folder: Path, name: str, start_from: Path | None = None, symbols_as_bytes: bool = False) -> Config:
    """Hearts are common enough for a piece of their own."""
    path = folder / "pairs.tsv"
    path.write_text("".join(f"{i} ♥ {i + 1}\t{i + 1} ♥ {i}\n" for i in range(90)), encoding="utf-8")
    corpus = {"kind": "files", "training": [{"tsv": str(path)}], "held_out": {"validation": 5, "test": 10}}
    side = {"kind": "unigram", "vocabulary_size": 280}
    values = tiny_values(folder / name, training={"updates": 2}) | {"corpus": corpus}
    values |= {"tokenizers": {"source": side, "target": side, "symbols_as_bytes": symbols_as_bytes}}
    return Config.model_validate(values | ({} if start_from is None else {"start_from": str(start_from)}))


def test_symbols_become_bytes_and_the_weights_stay(tmp_path: Path) -> None:
    """From a run and from its bundle; a run whose symbols are bytes is a start for such alone."""
    first = of_pieces(tmp_path, "first")
    corpus = prepare(first, ignore_progress)
    assert trainer(first, corpus).train()
    heart = corpus.tokenizer("source").piece_id("♥")
    assert heart is not None
    assert heart in corpus.arrays("training").source.ids
    best = torch.load(first.run_directory / "best.pt", weights_only=True)["model"]
    bundle = export_bundle(first, corpus, tmp_path / "exported", ignore_progress)
    for name, start in (("of-run", first.run_directory), ("of-bundle", bundle)):
        config = of_pieces(tmp_path, name, start, symbols_as_bytes=True)
        second = prepare(config, ignore_progress)
        assert second.tokenizer("source").piece_id("♥") == heart
        assert heart not in second.arrays("training").source.ids
        begun = trainer(config, second)
        assert all(torch.equal(tensor, best[key]) for key, tensor in begun.model.state_dict().items())
        assert begun.train()
        export_bundle(config, second, tmp_path / f"exported-{name}", ignore_progress)
        assert trainer(config, second).train()  # continues itself
        on = of_pieces(tmp_path, f"{name}-on", config.run_directory, symbols_as_bytes=True)
        trainer(on, prepare(on, ignore_progress))
        third = of_pieces(tmp_path, f"{name}-third", config.run_directory)
        with pytest.raises(CorpusError, match=r"start_from: the tokenizers of .* are of other settings"):
            prepare(third, ignore_progress)


# --- a bundle --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(first: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the finished run. Shared: not to be written to."""
    repository = tmp_path_factory.mktemp("exported")
    return export_bundle(first, Corpus(first.run_directory / "data"), repository, ignore_progress)


def from_bundle(folder: Path, start: Path, **changes: Any) -> Config:
    return tiny_config(folder / "second", start_from=str(start), **({"corpus": {"seed": 99}} | changes))


def test_a_bundle_gives_its_weights_and_its_tokenizers(first: Config, bundle: Path, tmp_path: Path) -> None:
    config = from_bundle(tmp_path, bundle, model={"dropout": 0.3})
    corpus = prepare(config, ignore_progress)
    for side in ("source", "target"):
        assert corpus.tokenizer_path(side).read_bytes() == (bundle / f"{side}.spm").read_bytes()
    best = torch.load(first.run_directory / "best.pt", weights_only=True)["model"]
    begun = trainer(config, corpus).model.state_dict()
    assert begun.keys() == best.keys()
    assert all(torch.equal(begun[name], best[name]) for name in best)


def test_tied_weights_of_a_bundle_stay_tied(tmp_path: Path) -> None:
    model = {"family": "transformer", "size": 16, "heads": 2, "feed_forward": 24, "encoder_layers": 1}
    model |= {"decoder_layers": 1, "max_positions": 40, "tied_embeddings": "all", "dropout": 0.1}
    shared = {"source": {"kind": "word"}, "target": {"kind": "word"}, "shared": True}
    values = tiny_values(tmp_path / "first", training={"updates": 3})
    values |= {"model": model, "tokenizers": shared}
    values["export"] = values["export"] | {"weights_dtype": "float16"}
    config = Config.model_validate(values)
    corpus = prepare(config, ignore_progress)
    assert trainer(config, corpus).train()
    start = export_bundle(config, corpus, tmp_path / "exported", ignore_progress)
    second = Config.model_validate(values | {"run_directory": str(tmp_path / "second"), "start_from": str(start)})
    begun = trainer(second, prepare(second, ignore_progress)).model
    best = torch.load(config.run_directory / "best.pt", weights_only=True)["model"]
    state = begun.state_dict()
    assert all(torch.equal(state[name], tensor.to(torch.float16).to(tensor.dtype)) for name, tensor in best.items())
    places = {tensor.data_ptr() for tensor in state.values()}
    assert len(places) < len(state)


def test_a_damaged_bundle_is_no_start(bundle: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(bundle, tmp_path / "tiny" / "1"))
    (damaged / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(CorpusError, match=r"start_from: tiny/1/weights\.safetensors has sha256"):
        prepare(from_bundle(tmp_path, damaged), ignore_progress)


def test_a_bundle_of_another_model_or_other_tokenizers_is_refused(bundle: Path, tmp_path: Path) -> None:
    config = from_bundle(tmp_path, bundle, model={"embedding_size": 9})
    corpus = prepare(config, ignore_progress)
    with pytest.raises(CheckpointError, match=r"tiny/1 is of another model \(embedding_size: 8 there, 9 here\)"):
        trainer(config, corpus)
    other = {"source": {"kind": "char"}, "target": {"kind": "char"}}
    with pytest.raises(CorpusError, match=r"start_from: the tokenizers of .* are of other settings"):
        prepare(from_bundle(tmp_path, bundle, tokenizers=other), ignore_progress)


@pytest.mark.parametrize("missing", ["tokenizers", "model"])
def test_a_bundle_that_does_not_tell_how_it_was_made_is_refused(bundle: Path, tmp_path: Path, missing: str) -> None:
    silent = Path(shutil.copytree(bundle, tmp_path / "tiny" / "1"))
    edit_manifest(silent, lambda values: values["provenance"]["config"].pop(missing))
    config = from_bundle(tmp_path, silent)
    with pytest.raises((CorpusError, CheckpointError), match=r"tiny/1 does not tell .* start from its run"):
        trainer(config, prepare(config, ignore_progress))


def test_a_bundle_without_a_weight_of_the_model_is_refused(bundle: Path, tmp_path: Path) -> None:
    poorer = Path(shutil.copytree(bundle, tmp_path / "tiny" / "1"))
    weights = load_file(poorer / "weights.safetensors")
    name = min(weights)
    save_file({other: tensor for other, tensor in weights.items() if other != name}, poorer / "weights.safetensors")
    content = (poorer / "weights.safetensors").read_bytes()
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    edit_manifest(poorer, lambda values: values["files"].update({"weights.safetensors": entry}))
    config = from_bundle(tmp_path, poorer)
    with pytest.raises(CheckpointError, match=rf"has not the weights .*{re.escape(name)}.* of this model"):
        trainer(config, prepare(config, ignore_progress))


def test_another_bundle_in_the_same_place_is_prepared_anew(bundle: Path, tmp_path: Path) -> None:
    start = Path(shutil.copytree(bundle, tmp_path / "tiny" / "1"))
    config, told = from_bundle(tmp_path, start), list[str]()
    prepare(config, told.append)
    edit_manifest(start, lambda values: values.update(description="Another."))
    prepare(config, told.append)
    assert any("manifest.json changed since" in line for line in told)


def test_what_a_bundle_held_out_is_known_by_its_hash(tmp_path: Path) -> None:
    one = of_files(tmp_path, 10)
    one = one.model_copy(update={"training": one.training.model_copy(update={"updates": 2})})
    corpus = prepare(one, ignore_progress)
    assert trainer(one, corpus).train()
    start = export_bundle(one, corpus, tmp_path / "exported", ignore_progress)
    told: list[str] = []
    prepare(of_files(tmp_path, 10, start), told.append)
    assert not any("held out others" in line for line in told)
    prepare(of_files(tmp_path, 30, start), told.append)
    assert any("held out others than the test here" in line for line in told)
