"""A training run's whole configuration: one YAML file, checked at once, every key with a default or a refusal.

Knows nothing of torch. Unknown keys are refused by name; values out of range are refused with what is allowed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.errors import ConfigError
from training.tasks import TASKS, TaskName

Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Probability = Annotated[float, Field(ge=0.0, lt=1.0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Languages(_Section):
    """BCP 47 codes; private-use codes ("x-date") where a side is no natural language."""

    source: list[str] = Field(min_length=1)
    target: list[str] = Field(min_length=1)


class CorpusConfig(_Section):
    """Where the sentence pairs come from: a generator, with one seed for all its parts."""

    task: TaskName
    training_pairs: Positive
    validation_pairs: Positive
    test_pairs: Positive
    varied_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0  # of the training pairs, as people really write
    seed: Seed = 1

    @model_validator(mode="after")
    def _check_variations(self) -> CorpusConfig:
        if self.varied_share and TASKS[self.task].variations is None:
            raise ValueError(
                f"varied_share is {self.varied_share}, and the task {self.task} has no variations: leave it 0"
            )
        return self


class TokenizerConfig(_Section):
    """A SentencePiece model for one side. ``char`` and ``word`` take the vocabulary from the training text, whole."""

    kind: Literal["char", "word"]


class TokenizersConfig(_Section):
    source: TokenizerConfig
    target: TokenizerConfig


ScoreName = Literal["additive", "concat", "dot", "scaled_dot", "general", "location", "cosine", "kernel"]
#: A score function, soft and global; or what is made of one's scores; or what does without one.
AttentionName = Literal[
    "additive",
    "concat",
    "dot",
    "scaled_dot",
    "general",
    "location",
    "cosine",
    "kernel",
    "hard",
    "local_m",
    "local_p",
    "multi_head",
    "attention_over_attention",
    "average",
    "max",
    "none",
]


class RecurrentConfig(_Section):
    """The recurrent sequence-to-sequence models (``training.models.recurrent``).

    ``attention``: a score function, soft and global, or another mechanism, which makes weights of ``score``. Sizes are
    of one direction (``encoder_size``) and of one layer's state (``decoder_size``).
    """

    family: Literal["recurrent"] = "recurrent"
    embedding_size: Positive = 64
    encoder: Literal["lstm", "gru"] = "lstm"
    encoder_size: Positive = 128
    encoder_layers: Positive = 1
    bidirectional: bool = True
    decoder: Literal["gru", "lstm", "additive"] = "gru"
    decoder_size: Positive = 256
    decoder_layers: Positive = 1
    attention: AttentionName = "additive"
    score: ScoreName = "additive"
    attention_size: Positive = 128
    attention_heads: Positive = 4
    attention_window: Positive = 2  # D of local attention
    max_positions: Positive = 128  # of the source for location, of the target for attention over attention
    input_feeding: bool = False
    context_sentences: Annotated[int, Field(ge=0)] = 0  # read before each sentence, by hierarchical attention of score
    dropout: Probability = 0.0


class TransformerConfig(_Section):
    """The Transformer (``training.models.transformer``). ``max_positions``: the most target tokens, `</s>` included."""

    family: Literal["transformer"] = "transformer"
    size: Positive = 128
    heads: Positive = 4
    feed_forward: Positive = 512
    encoder_layers: Positive = 4
    decoder_layers: Positive = 2
    norm: Literal["pre", "post"] = "pre"
    positions: Literal["sinusoidal", "rotary"] = "sinusoidal"
    tied_embeddings: Literal["none", "target", "all"] = "target"
    max_positions: Positive = 128
    dropout: Probability = 0.1


class SoftFeedbackConfig(_Section):
    """The human-date model as published (``training.models.soft_feedback``)."""

    family: Literal["soft_feedback"] = "soft_feedback"
    encoder_size: Positive = 256
    decoder_size: Positive = 256


class SandGlassConfig(_Section):
    """The one-pass model of fixed length (``training.models.sandglass``).

    ``attention``: the layers that attend; ``gate``: what a convolution's output goes through instead of tanh, gated
    linear or gated tanh units; ``reduce_attention``: blocks are averaged by weights instead of convolved.
    """

    family: Literal["sandglass"] = "sandglass"
    attention: tuple[Literal["1", "2", "3", "4"], ...] = ("1", "2", "3", "4")
    batch_norm: bool = True
    gate: Literal["none", "glu", "gtu"] = "none"
    reduce_attention: bool = False


ModelConfig = Annotated[
    RecurrentConfig | TransformerConfig | SoftFeedbackConfig | SandGlassConfig, Field(discriminator="family")
]


class TrainingConfig(_Section):
    """The optimisation.

    One update sees one batch: sentences of like length, of at most ``batch_tokens`` padded source plus target tokens;
    or, where ``batch_sentences`` is set, so many sentences of any length. The learning rate warms up linearly, then
    falls along half a cosine to zero, or stays.
    """

    updates: Positive
    batch_tokens: Positive = 12_000
    batch_sentences: Positive | None = None
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_updates: Annotated[int, Field(ge=0)] = 500
    adam_betas: tuple[Probability, Probability] = (0.9, 0.98)
    adam_epsilon: Annotated[float, Field(gt=0.0)] = 1e-9
    label_smoothing: Probability = 0.0
    gradient_norm: Annotated[float, Field(gt=0.0)] = 1.0
    validate_every: Positive = 1000
    log_every: Positive = 50
    seed: Seed = 1
    threads: Annotated[int, Field(ge=0)] = 0  # 0: as many as the machine has


class LimitsConfig(_Section):
    """What the service will accept and emit, in tokens, `</s>` included."""

    max_source_tokens: Positive
    max_target_tokens: Positive


class ExportConfig(_Section):
    """What goes into the bundle beside the weights."""

    description: str
    license: str
    attribution: list[str] = []
    limits: LimitsConfig
    golden_sentences: list[str | Annotated[list[str], Field(min_length=1)]] = Field(min_length=1)  # list: a document


class Config(_Section):
    """One run, from corpus to bundle."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    version: Positive = 1
    run_directory: Path
    languages: Languages
    corpus: CorpusConfig
    tokenizers: TokenizersConfig
    model: ModelConfig
    training: TrainingConfig
    export: ExportConfig

    @model_validator(mode="after")
    def _check_context(self) -> Config:
        wanted = self.model.context_sentences if isinstance(self.model, RecurrentConfig) else 0
        given = TASKS[self.corpus.task].context_sentences
        if wanted not in (0, given):
            raise ValueError(
                f"model.context_sentences is {wanted}, and the task {self.corpus.task} has {given} before each "
                f"sentence: set it to {' or '.join(map(str, sorted({0, given})))}"
            )
        for golden in self.export.golden_sentences:
            if isinstance(golden, list) and len(golden) - 1 > wanted:
                raise ValueError(
                    f"export.golden_sentences has {len(golden) - 1} sentences before {golden[-1]!r}, and the model "
                    f"reads {wanted}: leave out the first ones"
                )
        return self

    @model_validator(mode="after")
    def _check_positions(self) -> Config:
        """A place beyond ``max_positions`` would be passed over without a word."""
        model, limits = self.model, self.export.limits
        needed = 0
        if isinstance(model, TransformerConfig):
            needed = limits.max_target_tokens
        elif isinstance(model, RecurrentConfig):
            made_of_scores = model.attention in ("hard", "local_m", "local_p", "attention_over_attention")
            if model.attention == "attention_over_attention":
                needed = limits.max_target_tokens
            used = made_of_scores or model.context_sentences
            if model.attention == "location" or (used and model.score == "location"):
                needed = max(needed, limits.max_source_tokens)
        if needed and isinstance(model, (RecurrentConfig, TransformerConfig)) and model.max_positions < needed:
            raise ValueError(
                f"model.max_positions is {model.max_positions}, and export.limits allows {needed} tokens: raise the "
                "one or lower the other"
            )
        return self


def load_config(path: Path) -> Config:
    """Read and check a YAML config.

    Raises ConfigError, naming the key, the value and what is allowed; relative paths stay relative to where the
    command runs.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = dict.fromkeys(_describe(entry) for entry in error.errors())  # a union says the same of each branch
        raise ConfigError(f"{path}: " + "; ".join(problems)) from error


_BRANCHES = ("str", "list[str]")  # of a union, which pydantic names as if they were keys


def _describe(entry: object) -> str:
    assert isinstance(entry, dict)
    place = [str(part) for part in entry["loc"] if part not in _BRANCHES]
    if place[0:1] == ["model"]:  # pydantic names the family as if it were a section
        del place[1:2]
    if not place and entry["type"] == "value_error":  # of the whole, which need not be shown
        return str(entry["msg"]).removeprefix("Value error, ")
    key = ".".join(place) or "the file"
    if entry["type"] == "union_tag_not_found":
        return f"missing key {key}.family"
    if entry["type"] == "union_tag_invalid":
        return f"{key}.family = {entry['input']['family']!r}: Input should be one of {entry['ctx']['expected_tags']}"
    if entry["type"] == "extra_forbidden":
        return f"unknown key {key}"
    if entry["type"] == "missing":
        return f"missing key {key}"
    return f"{key} = {entry['input']!r}: {entry['msg']}"
