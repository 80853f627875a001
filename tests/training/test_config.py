"""A config is taken whole or refused with the key, the value and what is allowed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from tests.training.conftest import tiny_values, write_config
from training.config import (
    AttentionName,
    Config,
    FileCorpus,
    GoldenText,
    HeldOut,
    PairFiles,
    RecurrentConfig,
    SandGlassConfig,
    ScoreName,
    SoftFeedbackConfig,
    TaskCorpus,
    TransformerConfig,
    TsvFile,
    load_config,
)
from training.errors import ConfigError

SHIPPED = sorted((Path(__file__).parents[2] / "training" / "configs").glob("*.yaml"))


def changed(path: Path, key: str, value: object) -> Path:
    """A good config but for one dotted key."""
    values = yaml.safe_load(yaml.safe_dump(tiny_values(path)))
    *sections, last = key.split(".")
    section = values
    for name in sections:
        section = section[name]
    section[last] = value
    return write_config(path / "config.yaml", values)


def without(path: Path, key: str) -> Path:
    values = yaml.safe_load(yaml.safe_dump(tiny_values(path)))
    *sections, last = key.split(".")
    section = values
    for name in sections:
        section = section[name]
    del section[last]
    return write_config(path / "config.yaml", values)


def in_context(path: Path, task: str, sentences: int) -> Path:
    """A config of a task and of a model that reads so many sentences before each."""
    values = tiny_values(path, corpus={"task": task}, model={"context_sentences": sentences})
    return write_config(path / "config.yaml", values)


#: Models that have a place for each position, the limits of source and target, and how many positions these need.
POSITIONS: list[tuple[dict[str, Any], int, int, int]] = [
    ({"family": "transformer"}, 40, 20, 20),
    ({"family": "transformer", "positions": "rotary"}, 10, 20, 20),
    ({"family": "recurrent", "attention": "attention_over_attention"}, 40, 20, 20),
    ({"family": "recurrent", "attention": "attention_over_attention", "score": "location"}, 40, 20, 40),
    ({"family": "recurrent", "attention": "attention_over_attention", "score": "location"}, 10, 20, 20),
    ({"family": "recurrent", "attention": "location"}, 40, 60, 40),
    ({"family": "recurrent", "attention": "hard", "score": "location"}, 40, 60, 40),
    ({"family": "recurrent", "attention": "local_m", "score": "location"}, 40, 60, 40),
    ({"family": "recurrent", "attention": "local_p", "score": "location"}, 40, 60, 40),
]
#: Models that have none, be it that the score of places is not asked: one position will do.
NO_POSITIONS: list[tuple[dict[str, Any], int, int, int]] = [
    ({"family": "recurrent", "attention": attention, "score": score}, 40, 20, 1)
    for attention, score in [
        ("additive", "additive"),
        ("hard", "general"),
        ("local_p", "additive"),
        ("general", "location"),
        ("multi_head", "location"),
        ("none", "location"),
    ]
]


def of_positions(path: Path, model: dict[str, Any], source: int, target: int, positions: int) -> Path:
    limits = {"limits": {"max_source_tokens": source, "max_target_tokens": target}}
    values = tiny_values(path, export=limits) | {"model": model | {"max_positions": positions}}
    return write_config(path / "config.yaml", values)


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    message = str(refused.value)
    assert "\n" not in message
    assert str(path) in message
    return message


# --- what is taken ---------------------------------------------------------------------------------------------------


def test_every_shipped_config_is_there() -> None:
    names = {"dates", "dates-in-context", "dates-soft-feedback", "reverse", "reverse-transformer"}
    names |= {"sandglass-reverse", "sandglass-reverse-recurrent", "mechanisms-dates", "mechanisms-reverse"}
    names |= {
        "benchmark-training",
        "tatoeba-de-en",
        "tatoeba-en-de",
        "multi30k-en-de",
        "multi30k-en-fr",
        "tatoeba-many",
    }
    versions = (2, 3, "4-begin", 4, "5-begin", 5, 6, "7-begin", 7, "8-begin", "8-middle", 8, 9, 10)
    names |= {f"tatoeba-{pair}-v{version}" for pair in ("de-en", "en-de") for version in versions}
    names |= {f"tatoeba-{pair}" for pair in ("fr-en", "en-fr", "es-en", "en-es")}
    assert {path.stem for path in SHIPPED} == names


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_config_loads_and_says_what_its_file_says(path: Path) -> None:
    config = load_config(path)
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert path.stem.removesuffix("-begin").removesuffix("-middle") in (config.name, f"{config.name}-v{config.version}")
    assert isinstance(config.corpus, FileCorpus) or config.corpus.task in path.stem
    assert config.run_directory == Path(written["run_directory"])
    loaded = config.model_dump(mode="json")
    base = written.pop("base", None)
    assert base is not None or written.keys() >= {"languages", "corpus", "tokenizers", "model", "training", "export"}
    for section in written:
        assert_within(written[section], loaded[section])


def assert_within(written: object, loaded: object) -> None:
    """A file need not say what has a default."""
    if isinstance(written, dict):
        assert isinstance(loaded, dict)
        for key in written:
            assert_within(written[key], loaded[key])
    elif isinstance(written, list):
        assert isinstance(loaded, list)
        for one, other in zip(written, loaded, strict=True):
            assert_within(one, other)
    else:
        assert written == loaded


def test_what_is_not_given_has_its_default(tmp_path: Path) -> None:
    values = tiny_values(tmp_path) | {"model": {"family": "recurrent"}, "training": {"updates": 5}}
    config = load_config(write_config(tmp_path / "config.yaml", values))
    assert config.version == 1
    assert config.model == RecurrentConfig(embedding_size=64, encoder_layers=1)
    assert (config.training.updates, config.training.batch_tokens, config.training.threads) == (5, 12_000, 0)
    assert (config.training.batch_sentences, config.training.schedule) == (None, "cosine")
    training = config.training
    assert (training.accumulate, training.r_drop, training.precision, training.device) == (1, 0.0, "fp32", "auto")
    assert (training.select_by, training.keep_best, training.keep_last) == ("exact_match", 1, 0)
    assert (training.patience, training.save_every, training.ema_decay) == (0, None, None)
    assert (training.adam_betas, training.adam_epsilon) == ((0.9, 0.98), 1e-9)
    assert isinstance(config.corpus, TaskCorpus)
    assert config.corpus.varied_share == 0.0
    assert (config.tokenizers.shared, config.tokenizers.source.sampling) == (False, 0.0)
    assert config.export.weights == "best"
    assert config.export.attribution == []


@pytest.mark.parametrize(
    ("family", "wanted"),
    [
        (
            "recurrent",
            RecurrentConfig(
                embedding_size=64,
                encoder="lstm",
                encoder_size=128,
                encoder_layers=1,
                bidirectional=True,
                decoder="gru",
                decoder_size=256,
                decoder_layers=1,
                attention="additive",
                score="additive",
                attention_size=128,
                attention_heads=4,
                attention_window=2,
                max_positions=128,
                input_feeding=False,
                context_sentences=0,
                dropout=0.0,
            ),
        ),
        (
            "transformer",
            TransformerConfig(
                size=128,
                heads=4,
                feed_forward=512,
                encoder_layers=4,
                decoder_layers=2,
                norm="pre",
                positions="sinusoidal",
                tied_embeddings="target",
                max_positions=128,
                dropout=0.1,
            ),
        ),
        ("soft_feedback", SoftFeedbackConfig(encoder_size=256, decoder_size=256)),
        (
            "sandglass",
            SandGlassConfig(attention=("1", "2", "3", "4"), batch_norm=True, gate="none", reduce_attention=False),
        ),
    ],
)
def test_a_family_is_chosen_by_its_name(tmp_path: Path, family: str, wanted: object) -> None:
    config = load_config(changed(tmp_path, "model", {"family": family}))
    assert config.model == wanted
    assert Config.model_validate(config.model_dump(mode="json")) == config


def test_every_shipped_family_has_a_config() -> None:
    families = {"recurrent", "transformer", "soft_feedback", "sandglass"}
    assert {load_config(path).model.family for path in SHIPPED} == families


def test_there_are_eight_scores_and_eight_mechanisms() -> None:
    scores = ["additive", "concat", "dot", "scaled_dot", "general", "location", "cosine", "kernel"]
    mechanisms = ["hard", "local_m", "local_p", "multi_head", "attention_over_attention", "average", "max", "none"]
    assert list(get_args(ScoreName)) == scores
    assert list(get_args(AttentionName)) == [*get_args(ScoreName), *mechanisms]


@pytest.mark.parametrize("attention", get_args(AttentionName))
def test_a_recurrent_model_may_have_any_attention(tmp_path: Path, attention: str) -> None:
    values = {
        "family": "recurrent",
        "encoder": "gru",
        "bidirectional": False,
        "decoder": "lstm",
        "decoder_layers": 3,
        "attention": attention,
        "score": "general",
        "attention_heads": 2,
        "attention_window": 5,
        "max_positions": 60,
        "input_feeding": True,
    }
    config = load_config(changed(tmp_path, "model", values))
    assert config.model.model_dump() | values == config.model.model_dump()
    assert Config.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("tied", ["none", "target", "all"])
@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_transformer_may_be_of_any_kind(tmp_path: Path, norm: str, positions: str, tied: str) -> None:
    values = {"family": "transformer", "size": 12, "heads": 3, "norm": norm, "positions": positions}
    config = load_config(changed(tmp_path, "model", values | {"tied_embeddings": tied}))
    wanted = {"size": 12, "heads": 3, "norm": norm, "positions": positions, "tied_embeddings": tied}
    assert config.model == TransformerConfig.model_validate(wanted)
    assert Config.model_validate(config.model_dump(mode="json")) == config


def test_a_sandglass_may_attend_in_some_layers(tmp_path: Path) -> None:
    values = {"family": "sandglass", "attention": ["1", "3"], "gate": "glu", "reduce_attention": True}
    config = load_config(changed(tmp_path, "model", values))
    assert config.model == SandGlassConfig(attention=("1", "3"), gate="glu", reduce_attention=True)


def test_dates_may_vary(tmp_path: Path) -> None:
    values = tiny_values(tmp_path, corpus={"task": "dates", "varied_share": 0.4})
    config = load_config(write_config(tmp_path / "config.yaml", values))
    assert isinstance(config.corpus, TaskCorpus)
    assert config.corpus.varied_share == 0.4


@pytest.mark.parametrize("sentences", [0, 3])
def test_a_model_may_read_the_sentences_of_its_task_or_none(tmp_path: Path, sentences: int) -> None:
    config = load_config(in_context(tmp_path, "dates-in-context", sentences))
    assert isinstance(config.model, RecurrentConfig)
    assert config.model.context_sentences == sentences


def test_a_model_that_cannot_read_a_context_may_learn_a_task_of_documents(tmp_path: Path) -> None:
    values = tiny_values(tmp_path, corpus={"task": "dates-in-context"}) | {"model": {"family": "transformer"}}
    config = load_config(write_config(tmp_path / "config.yaml", values))
    assert isinstance(config.corpus, TaskCorpus)
    assert config.corpus.task == "dates-in-context"


def test_a_golden_sentence_may_be_a_document(tmp_path: Path) -> None:
    golden = ["1 2", ["3 4", "5"], ["6"]]
    values = tiny_values(tmp_path, corpus={"task": "dates-in-context"}, export={"golden_sentences": golden})
    values["model"] = {"family": "recurrent", "context_sentences": 3}
    assert load_config(write_config(tmp_path / "config.yaml", values)).export.golden_sentences == golden


def test_a_location_score_of_the_context_has_places_too(tmp_path: Path) -> None:
    values = tiny_values(tmp_path, corpus={"task": "dates-in-context"})
    values["model"] = {"family": "recurrent", "context_sentences": 3, "score": "location", "max_positions": 25}
    with pytest.raises(ConfigError, match=r"model\.max_positions is 25, and export\.limits allows 26 tokens"):
        load_config(write_config(tmp_path / "config.yaml", values))


@pytest.mark.parametrize("reads", [0, 3])
def test_a_golden_sentence_behind_more_than_the_model_reads_is_refused(tmp_path: Path, reads: int) -> None:
    golden = [["1"] * (reads + 1) + ["5"]]
    values = tiny_values(tmp_path, corpus={"task": "dates-in-context"}, export={"golden_sentences": golden})
    values["model"] = {"family": "recurrent", "context_sentences": reads}
    with pytest.raises(ConfigError, match=f"has {reads + 1} sentences before '5', and the model reads {reads}"):
        load_config(write_config(tmp_path / "config.yaml", values))


@pytest.mark.parametrize(("model", "source", "target", "needed"), [*POSITIONS, *NO_POSITIONS])
def test_as_many_positions_as_the_limits_allow_are_enough(
    tmp_path: Path, model: dict[str, Any], source: int, target: int, needed: int
) -> None:
    config = load_config(of_positions(tmp_path, model, source, target, needed))
    assert config.model.model_dump()["max_positions"] == needed


def test_a_number_in_scientific_notation_is_a_number(tmp_path: Path) -> None:
    """YAML 1.1 reads "1e-3", without a point, as text."""
    assert load_config(changed(tmp_path, "training.learning_rate", "1e-3")).training.learning_rate == 0.001


def test_a_config_does_not_change(tmp_path: Path) -> None:
    config = Config.model_validate(tiny_values(tmp_path))
    with pytest.raises(ValueError, match="frozen"):
        config.training.updates = 1  # type: ignore[misc]


def test_reading_a_config_needs_no_torch() -> None:
    code = "import sys, training.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["colour", "training.learning_rat", "corpus.size", "export.limits.max_tokens", "model.decoder_siz"]
)
def test_an_unknown_key_is_named(tmp_path: Path, key: str) -> None:
    assert f"unknown key {key}" in refusal(changed(tmp_path, key, 1))


@pytest.mark.parametrize(
    "key", ["name", "run_directory", "corpus.task", "training.updates", "export.limits", "model", "model.family"]
)
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    assert f"missing key {key}" in refusal(without(tmp_path, key))


WRONG_TYPES: list[tuple[str, Any]] = [
    ("training.updates", "many"),
    ("training.updates", 12.5),
    ("training.updates", None),
    ("training.learning_rate", [0.1]),
    ("model", "recurrent"),
    ("languages.source", "x-date"),
    ("export.description", 7),
    ("corpus", None),
]


@pytest.mark.parametrize(("key", "value"), WRONG_TYPES)
def test_a_wrong_type_is_refused_with_key_and_value(tmp_path: Path, key: str, value: object) -> None:
    assert f"{key} = {value!r}: " in refusal(changed(tmp_path, key, value))


NOT_ALLOWED: list[tuple[str, Any, str]] = [
    ("training.updates", 0, "greater than 0"),
    ("training.updates", -5, "greater than 0"),
    ("training.learning_rate", 0.0, "greater than 0"),
    ("training.learning_rate", float("nan"), "greater than 0"),
    ("training.warmup_updates", -1, "greater than or equal to 0"),
    ("training.threads", -1, "greater than or equal to 0"),
    ("training.label_smoothing", 1.0, "less than 1"),
    ("training.gradient_norm", -1.0, "greater than 0"),
    ("model.dropout", 1.0, "less than 1"),
    ("model.dropout", -0.1, "greater than or equal to 0"),
    ("model.encoder_layers", 0, "greater than 0"),
    ("model.family", "rnn", "'recurrent', 'transformer', 'soft_feedback', 'sandglass'"),
    ("model.family", 7, "'recurrent', 'transformer', 'soft_feedback', 'sandglass'"),
    ("corpus.task", "poetry", "'dates', 'dates-in-context', 'reverse' or 'sandglass-reverse'"),
    ("corpus.varied_share", 1.5, "less than or equal to 1"),
    ("corpus.varied_share", -0.1, "greater than or equal to 0"),
    ("training.schedule", "linear", "'cosine', 'constant', 'inverse_sqrt' or 'plateau'"),
    ("training.plateau_patience", 0, "greater than 0"),
    ("training.plateau_factor", 1.0, "less than 1"),
    ("training.plateau_factor", 0.0, "greater than 0"),
    ("training.accumulate", 0, "greater than 0"),
    ("training.r_drop", -0.5, "greater than or equal to 0"),
    ("training.adam_epsilon", 0.0, "greater than 0"),
    ("training.ema_decay", 1.0, "less than 1"),
    ("training.ema_decay", 0.0, "greater than 0"),
    ("training.precision", "fp8", "'fp32', 'bf16' or 'fp16'"),
    ("training.device", "tpu", "'auto', 'cpu' or 'cuda'"),
    ("training.select_by", "best", "'exact_match', 'loss', 'accuracy', 'bleu' or 'chrf'"),
    ("training.keep_best", 0, "greater than 0"),
    ("training.keep_last", -1, "greater than or equal to 0"),
    ("training.patience", -1, "greater than or equal to 0"),
    ("training.save_every", 0, "greater than 0"),
    ("training.validate_every", 0, "greater than 0"),
    ("training.validation_sentences", -1, "greater than or equal to 0"),
    ("training.log_every", 0, "greater than 0"),
    ("training.seed", 2**63, "less than"),
    ("corpus.kind", "poetry", "'task', 'files'"),
    ("export.weights", "last", "'best', 'average_best', 'average_last' or 'start'"),
    ("training.batch_sentences", 0, "greater than 0"),
    ("corpus.test_pairs", 0, "greater than 0"),
    ("tokenizers.source.kind", "sentence", "'char', 'word', 'unigram' or 'bpe'"),
    ("tokenizers.source.sampling", 1.0, "less than 1"),
    ("export.limits.max_source_tokens", 0, "greater than 0"),
    ("version", 0, "greater than 0"),
    ("name", "Dates", "pattern"),
    ("name", "../etc", "pattern"),
    ("name", "", "pattern"),
    ("name", "a" * 64, "pattern"),
]


@pytest.mark.parametrize(("key", "value", "allowed"), NOT_ALLOWED)
def test_a_value_out_of_range_is_refused_with_what_is_allowed(
    tmp_path: Path, key: str, value: object, allowed: str
) -> None:
    message = refusal(changed(tmp_path, key, value))
    assert f"{key} = {value!r}: " in message
    assert allowed in message


@pytest.mark.parametrize(
    ("family", "key", "value", "allowed"),
    [
        ("recurrent", "model.attention_size", 0, "greater than 0"),
        ("recurrent", "model.encoder", "rnn", "'lstm' or 'gru'"),
        ("recurrent", "model.decoder", "rnn", "'gru', 'lstm' or 'additive'"),
        ("recurrent", "model.bidirectional", "maybe", "boolean"),
        ("recurrent", "model.input_feeding", "maybe", "boolean"),
        ("recurrent", "model.decoder_layers", 0, "greater than 0"),
        ("recurrent", "model.score", "hard", "'location', 'cosine' or 'kernel'"),
        ("recurrent", "model.score", "none", "'location', 'cosine' or 'kernel'"),
        ("recurrent", "model.attention_heads", 0, "greater than 0"),
        ("recurrent", "model.attention_window", 0, "greater than 0"),
        ("recurrent", "model.max_positions", -1, "greater than 0"),
        ("recurrent", "model.context_sentences", -1, "greater than or equal to 0"),
        ("recurrent", "model.context_sentences", "all", "integer"),
        ("transformer", "model.size", 0, "greater than 0"),
        ("transformer", "model.heads", 0, "greater than 0"),
        ("transformer", "model.heads", 2.5, "integer"),
        ("transformer", "model.feed_forward", 0, "greater than 0"),
        ("transformer", "model.encoder_layers", 0, "greater than 0"),
        ("transformer", "model.decoder_layers", 0, "greater than 0"),
        ("transformer", "model.norm", "none", "'pre' or 'post'"),
        ("transformer", "model.positions", "learned", "'sinusoidal' or 'rotary'"),
        ("transformer", "model.tied_embeddings", "source", "'none', 'target' or 'all'"),
        ("transformer", "model.max_positions", 0, "greater than 0"),
        ("transformer", "model.dropout", 1.0, "less than 1"),
        ("soft_feedback", "model.decoder_size", 0, "greater than 0"),
        ("sandglass", "model.gate", "relu", "'none', 'glu' or 'gtu'"),
        ("sandglass", "model.batch_norm", "maybe", "boolean"),
    ],
)
def test_a_familys_own_keys_are_checked(tmp_path: Path, family: str, key: str, value: object, allowed: str) -> None:
    """Named as the file names them."""
    message = refusal(changed(tmp_path, "model", {"family": family, key.removeprefix("model."): value}))
    assert f"{key} = {value!r}: " in message
    assert allowed in message


@pytest.mark.parametrize(
    ("family", "key"),
    [
        ("soft_feedback", "embedding_size"),
        ("sandglass", "decoder_size"),
        ("recurrent", "gate"),
        ("recurrent", "heads"),
        ("transformer", "attention"),
        ("transformer", "decoder_size"),
        ("transformer", "context_sentences"),
    ],
)
def test_a_key_of_another_family_is_unknown(tmp_path: Path, family: str, key: str) -> None:
    assert f"unknown key model.{key}" in refusal(changed(tmp_path, "model", {"family": family, key: 5}))


def test_an_attention_that_is_none_is_refused_under_its_key(tmp_path: Path) -> None:
    message = refusal(changed(tmp_path, "model", {"family": "recurrent", "attention": "loud"}))
    assert message.count("model.attention = 'loud': ") == 1
    assert "literal" not in message


@pytest.mark.parametrize("name", get_args(AttentionName))
def test_a_refused_attention_is_told_all_that_there_are(tmp_path: Path, name: str) -> None:
    message = refusal(changed(tmp_path, "model", {"family": "recurrent", "attention": "loud"}))
    assert "model.attention" in message
    assert "'loud'" in message
    assert f"'{name}'" in message


def test_a_layer_that_a_sandglass_does_not_have_is_refused(tmp_path: Path) -> None:
    path = changed(tmp_path, "model", {"family": "sandglass", "attention": ["1", "5"]})
    assert "model.attention.1 = '5': Input should be '1', '2', '3' or '4'" in refusal(path)


@pytest.mark.parametrize("task", ["reverse", "sandglass-reverse"])
def test_a_task_without_variations_cannot_have_a_share_of_them(tmp_path: Path, task: str) -> None:
    values = tiny_values(tmp_path, corpus={"task": task, "varied_share": 0.25})
    message = refusal(write_config(tmp_path / "config.yaml", values))
    assert "corpus = " in message
    assert f"varied_share is 0.25, and the task {task} has no variations: leave it 0" in message


@pytest.mark.parametrize(
    ("task", "sentences", "told"),
    [
        ("reverse", 3, "has 0 before each sentence: set it to 0"),
        ("dates", 1, "has 0 before each sentence: set it to 0"),
        ("dates-in-context", 2, "has 3 before each sentence: set it to 0 or 3"),
        ("dates-in-context", 4, "has 3 before each sentence: set it to 0 or 3"),
    ],
)
def test_more_or_fewer_sentences_than_the_task_has_are_refused(
    tmp_path: Path, task: str, sentences: int, told: str
) -> None:
    message = refusal(in_context(tmp_path, task, sentences))
    assert message.endswith(f"model.context_sentences is {sentences}, and the corpus {told}")


@pytest.mark.parametrize(("model", "source", "target", "needed"), POSITIONS)
def test_fewer_positions_than_the_limits_allow_are_refused(
    tmp_path: Path, model: dict[str, Any], source: int, target: int, needed: int
) -> None:
    message = refusal(of_positions(tmp_path, model, source, target, needed - 1))
    assert f"model.max_positions is {needed - 1}, and export.limits allows {needed} tokens" in message


@pytest.mark.parametrize("golden", [[[]], ["1 2", []], [["1", 2]], [[["1"]]]])
def test_a_document_is_a_list_of_sentences_and_not_empty(tmp_path: Path, golden: list[object]) -> None:
    message = refusal(changed(tmp_path, "export.golden_sentences", golden))
    assert f"export.golden_sentences.{len(golden) - 1}" in message


# --- a corpus of files -----------------------------------------------------------------------------------------------

TSV, SIDES = {"tsv": "text/pairs.tsv.gz"}, {"source": "text/a.en", "target": "text/a.de"}


def of_files(path: Path, **corpus: Any) -> Path:
    return changed(path, "corpus", {"kind": "files", **corpus})


def test_a_corpus_may_be_of_files(tmp_path: Path) -> None:
    columns = TSV | {"source_column": 3, "target_column": 1}
    config = load_config(of_files(tmp_path, training=[columns, SIDES], held_out={"validation": 5, "test": 6}))
    assert isinstance(config.corpus, FileCorpus)
    assert config.task is None
    assert config.corpus.training == [
        TsvFile(tsv=Path("text/pairs.tsv.gz"), source_column=3, target_column=1),
        PairFiles(source=Path("text/a.en"), target=Path("text/a.de")),
    ]
    assert config.corpus.held_out == HeldOut(validation=5, test=6, by="source")
    filters = config.corpus.filters
    assert (filters.max_words, filters.max_characters, filters.max_ratio, filters.free_words) == (200, 1000, 3.0, 5)
    assert (filters.source_script, filters.target_script, filters.duplicates) == (None, None, True)
    assert Config.model_validate(config.model_dump(mode="json")) == config


def test_its_held_out_parts_may_be_files(tmp_path: Path) -> None:
    config = load_config(of_files(tmp_path, training=[TSV], validation=[SIDES], test=[TSV, SIDES]))
    assert isinstance(config.corpus, FileCorpus)
    assert [len(part or []) for part in (config.corpus.validation, config.corpus.test)] == [1, 2]


HELD = {"validation": 5, "test": 6}


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"validation": [TSV]},
        {"test": [TSV]},
        {"validation": [TSV], "test": [TSV], "held_out": HELD},
        {"validation": [TSV], "held_out": HELD},
        {"test": [TSV], "held_out": HELD},
    ],
)
def test_held_out_parts_are_files_or_groups_and_not_both(tmp_path: Path, parts: dict[str, Any]) -> None:
    message = refusal(of_files(tmp_path, training=[TSV], **parts))
    assert "name validation and test files, or held_out, and not both" in message


@pytest.mark.parametrize(
    ("corpus", "key"),
    [
        ({"held_out": HELD}, "missing key corpus.training"),
        ({"training": [], "held_out": HELD}, "corpus.training = []: "),
        ({"training": [TSV], "held_out": {"validation": 0, "test": 1}}, "corpus.held_out.validation = 0: "),
        ({"training": [TSV], "held_out": HELD | {"by": "both"}}, "corpus.held_out.by = 'both': "),
        ({"training": [TSV], "held_out": HELD, "filters": {"max_words": 0}}, "corpus.filters.max_words = 0: "),
        ({"training": [TSV], "held_out": HELD, "filters": {"max_ratio": 0.5}}, "corpus.filters.max_ratio = 0.5: "),
        ({"training": [TSV], "held_out": HELD, "filters": {"script": "LATIN"}}, "unknown key corpus.filters.script"),
        ({"training": [TSV], "held_out": HELD, "task": "dates"}, "unknown key corpus.task"),
        ({"training": [TSV | {"source_column": 0}], "held_out": HELD}, "source_column = 0: "),
    ],
)
def test_a_mistake_in_a_corpus_of_files_is_named(tmp_path: Path, corpus: dict[str, Any], key: str) -> None:
    assert key in refusal(of_files(tmp_path, **corpus))


# --- tokenizers, and what belongs together ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_learned_pieces_may_be_shared_and_sampled(tmp_path: Path, kind: str) -> None:
    side = {"kind": kind, "vocabulary_size": 500, "sampling": 0.1}
    config = load_config(changed(tmp_path, "tokenizers", {"source": side, "target": side, "shared": True}))
    assert config.tokenizers.shared
    assert config.tokenizers.source.training_sentences == 1_000_000
    assert config.tokenizers.target.sampling == 0.1


@pytest.mark.parametrize(
    ("side", "told"),
    [
        ({"kind": "unigram"}, "a tokenizer of the kind unigram needs a vocabulary_size"),
        ({"kind": "bpe", "sampling": 0.1}, "a tokenizer of the kind bpe needs a vocabulary_size"),
        ({"kind": "char", "vocabulary_size": 500}, "a tokenizer of the kind char has no vocabulary_size"),
        ({"kind": "word", "sampling": 0.1}, "sampling is of unigram and bpe, not of word: leave it 0"),
    ],
)
def test_a_tokenizer_has_what_its_kind_has(tmp_path: Path, side: dict[str, Any], told: str) -> None:
    message = refusal(changed(tmp_path, "tokenizers.source", side))
    assert "tokenizers.source = " in message
    assert told in message


def test_the_sides_of_a_shared_tokenizer_are_sampled_each_for_itself(tmp_path: Path) -> None:
    source, target = ({"kind": "unigram", "vocabulary_size": 90, "sampling": alpha} for alpha in (0.5, 0.0))
    config = load_config(changed(tmp_path, "tokenizers", {"source": source, "target": target, "shared": True}))
    assert (config.tokenizers.source.sampling, config.tokenizers.target.sampling) == (0.5, 0.0)


def test_a_shared_tokenizer_has_one_setting(tmp_path: Path) -> None:
    tokenizers = {"source": {"kind": "word"}, "target": {"kind": "char"}, "shared": True}
    told = "a shared tokenizer needs the same settings on both sides, but for sampling"
    assert told in refusal(changed(tmp_path, "tokenizers", tokenizers))


def test_only_learned_vocabularies_have_bytes(tmp_path: Path) -> None:
    sides = {"source": {"kind": "unigram", "vocabulary_size": 90}, "target": {"kind": "word"}}
    told = "symbols_as_bytes is of unigram and bpe: other vocabularies have no bytes, leave it false"
    assert told in refusal(changed(tmp_path, "tokenizers", sides | {"symbols_as_bytes": True}))
    assert not load_config(changed(tmp_path, "tokenizers", sides)).tokenizers.symbols_as_bytes


@pytest.mark.parametrize("measure", ["bleu", "chrf"])
def test_what_is_selected_by_translations_needs_some(tmp_path: Path, measure: str) -> None:
    told = f"select_by is {measure}, and validation_sentences is 0: translate some"
    assert told in refusal(changed(tmp_path, "training.select_by", measure))
    values = tiny_values(tmp_path, training={"select_by": measure, "validation_sentences": 1})
    assert load_config(write_config(tmp_path / "config.yaml", values)).training.select_by == measure


# --- lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["languages.source", "languages.target", "export.golden_sentences"])
def test_a_list_that_needs_an_entry_is_not_empty(tmp_path: Path, key: str) -> None:
    assert f"{key} = []: " in refusal(changed(tmp_path, key, []))


def test_an_unquoted_date_is_no_sentence(tmp_path: Path) -> None:
    """YAML reads 2038-01-19 as a date."""
    path = changed(tmp_path, "export.golden_sentences", ["9 May 2018", "DATE"])
    path.write_text(path.read_text(encoding="utf-8").replace("DATE", "2038-01-19"), encoding="utf-8")
    assert "export.golden_sentences.1 = datetime.date(2038, 1, 19): " in refusal(path)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    values = tiny_values(tmp_path, training={"updates": 0}, model={"dropout": 2.0}) | {"colour": "red"}
    message = refusal(write_config(tmp_path / "config.yaml", values))
    for part in ("training.updates = 0: ", "model.dropout = 2.0: ", "unknown key colour"):
        assert part in message


@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 2",
        "a: 1\n b: 2",
        "\ta: 1",
        "a: b: c",
        "!!python/object:os.system {}",
        "{[a]: b}",
        "a: \x00",
        "a: 2038-13-19",
        "[" * 5000,
    ],
)
def test_what_is_no_yaml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    assert "is not valid YAML: " in refusal(path)


def test_what_is_no_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes("name: Grüße".encode("latin-1"))
    assert "is not valid YAML: " in refusal(path)


@pytest.mark.parametrize("text", ["", "# nothing\n", "[1, 2]", "dates"])
def test_a_file_without_keys_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    assert "the file = " in refusal(path)


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    assert "cannot read the config" in refusal(tmp_path / "none.yaml")
    assert "No such file" in refusal(tmp_path / "none.yaml")
    assert "Is a directory" in refusal(tmp_path)


def test_int8_is_refused_where_the_runtime_has_none(tmp_path: Path) -> None:
    values = tiny_values(tmp_path, export={"int8": True})
    assert "export.int8 is true, and model.family is recurrent" in refusal(write_config(tmp_path / "c.yaml", values))
    values["model"] = {"family": "transformer"}
    assert load_config(write_config(tmp_path / "c.yaml", values)).export.int8


def test_the_languages_of_the_files_are_those_of_the_model_and_of_its_golden_sentences(tmp_path: Path) -> None:
    def told(target: list[str], golden: object) -> Path:
        values = tiny_values(tmp_path, export={"golden_sentences": [golden]})
        files = [{"tsv": "x.tsv", "target_language": language} for language in ("de", "fr")]
        values["corpus"] = {"kind": "files", "training": files, "held_out": {"validation": 1, "test": 1}}
        values["languages"] = {"source": ["en"], "target": target}
        return write_config(tmp_path / "c.yaml", values)

    good = {"source": "1", "target_language": "fr"}
    assert load_config(told(["fr", "de"], good)).export.golden_sentences == [GoldenText.model_validate(good)]
    assert "corpus.training has the target languages de, fr, and languages.target is de" in refusal(told(["de"], good))
    wanted = "write it as source and target_language, one of de, fr"
    assert wanted in refusal(told(["fr", "de"], "1"))
    assert wanted in refusal(told(["fr", "de"], {"source": "1", "target_language": "es"}))
    values = tiny_values(tmp_path, export={"golden_sentences": [good]})
    assert "write it as a plain sentence" in refusal(write_config(tmp_path / "c.yaml", values))


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"tsv": "a", "sorce_column": 2}, "unknown key corpus.training.0.sorce_column"),
        ({"source": "a", "targt": "b"}, "missing key corpus.training.0.target; unknown key corpus.training.0.targt"),
        ({"tsv": "a", "source_column": 2}, "source_column and target_column are both 2: name two columns"),
        ({"tsv": "a", "source_column": 0}, "corpus.training.0.source_column = 0: "),
        ("a.tsv", "corpus.training.0 = 'a.tsv': "),
    ],
)
def test_a_wrong_file_of_a_corpus_is_told_in_a_line(tmp_path: Path, entry: object, told: str) -> None:
    """And as the one form that it is of, not as both."""
    message = refusal(of_files(tmp_path, training=[entry], held_out={"validation": 1, "test": 1}))
    assert told in message
    assert "File." not in message
    assert message.count(";") == told.count(";")


@pytest.mark.parametrize(("share", "files"), [("framed", "frames"), ("templated", "templates")])
def test_frames_and_templates_are_of_one_target_language(tmp_path: Path, share: str, files: str) -> None:
    augment = {share: 0.1, files: {"tsv": "file"}}
    held_out = {"validation": 1, "test": 1}
    path = of_files(tmp_path, training=[{"tsv": "a", "target_language": "de"}], held_out=held_out, augment=augment)
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["export"]["golden_sentences"] = [{"source": "a", "target_language": "de"}]
    values["languages"]["target"] = ["de"]
    told = refusal(write_config(path, values))
    assert f"corpus.augment.{share} is set, and files name a target_language: {files} are of one only" in told


@pytest.mark.parametrize("made", ["formatted", "templated"])
@pytest.mark.parametrize(("side", "codes"), [("source", ["x-letters"]), ("target", ["en", "de"]), ("source", ["qq"])])
def test_dates_as_languages_write_them_need_two_languages(
    tmp_path: Path, side: str, codes: list[str], made: str
) -> None:
    augment = {made: 0.1, "templates": {"tsv": "file"}}
    path = of_files(tmp_path, training=[{"tsv": "a"}], held_out={"validation": 1, "test": 1}, augment=augment)
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["languages"] = {"source": ["de"], "target": ["pt-BR"]}
    assert load_config(write_config(path, values))
    values["languages"][side] = codes
    told = refusal(write_config(path, values))
    assert f"corpus.augment.{made} is 0.1, and languages.{side} is {', '.join(codes)}: it needs one" in told
