"""A training run's whole configuration: one YAML file, checked at once, every key with a default or a refusal.

Knows nothing of torch. Unknown keys are refused by name; values out of range are refused with what is allowed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from babel import Locale, UnknownLocaleError
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from training.config_files import read_values
from training.errors import ConfigError
from training.tasks import TASKS, Task, TaskName

Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveShare = Annotated[float, Field(gt=0.0, le=1.0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Languages(_Section):
    """BCP 47 codes; private-use codes ("x-date") where a side is no natural language."""

    source: list[str] = Field(min_length=1)
    target: list[str] = Field(min_length=1)


class TaskCorpus(_Section):
    """Where the sentence pairs come from: a generator, with one seed for all its parts."""

    kind: Literal["task"] = "task"
    task: TaskName
    training_pairs: Positive
    validation_pairs: Positive
    test_pairs: Positive
    varied_share: Share = 0.0  # of the training pairs, as people really write
    seed: Seed = 1

    @model_validator(mode="after")
    def _check_variations(self) -> TaskCorpus:
        if self.varied_share and TASKS[self.task].variations is None:
            raise ValueError(
                f"varied_share is {self.varied_share}, and the task {self.task} has no variations: leave it 0"
            )
        return self


class _TextFile(_Section):
    target_language: str | None = None  # of a model of several target languages: which
    repeat: Positive = (
        1  # how many times its pairs are trained on, in another form each where they are made into others
    )
    may_be_held_out: bool = True  # False: all of it is trained on, but for what is like a pair that is held out
    share: PositiveShare = 1.0  # of its pairs, chosen by their hashes: as good as random, and the same in every run
    hardest: PositiveShare = 1.0  # of those the share that costs ``corpus.judge`` the most nats a target token


class TsvFile(_TextFile):
    """A file of columns between tabs, plain or .gz; columns count from 1."""

    tsv: Path
    source_column: Positive = 1
    target_column: Positive = 2

    @model_validator(mode="after")
    def _check_columns(self) -> TsvFile:
        if self.source_column == self.target_column:
            raise ValueError(f"source_column and target_column are both {self.source_column}: name two columns")
        return self


class PairFiles(_TextFile):
    """Two files with as many lines, plain or .gz."""

    source: Path
    target: Path


_FILE_FORMS = ("<tsv>", "<pair>")


def _form_of(values: object) -> str:
    return _FILE_FORMS[0] if isinstance(values, TsvFile) or (isinstance(values, dict) and "tsv" in values) else "<pair>"


TextFile = Annotated[
    Annotated[TsvFile, Tag(_FILE_FORMS[0])] | Annotated[PairFiles, Tag(_FILE_FORMS[1])], Discriminator(_form_of)
]


class FilterConfig(_Section):
    """Pairs that are not wanted. A script is the first word of its letters' Unicode names, such as LATIN."""

    max_words: Positive = 200
    max_characters: Positive = 1000
    max_ratio: Annotated[float, Field(ge=1.0)] = 3.0
    free_words: Annotated[int, Field(ge=0)] = 5  # that two sides may differ by, whatever their ratio
    source_script: str | None = None
    target_script: str | None = None
    duplicates: bool = True  # refused


class AugmentConfig(_Section):
    """Shares of the training pairs after which one made of them follows (``training.augmentation``)."""

    upper_case: Share = 0.0
    unpunctuated: Share = 0.0  # a source without its full stop and, every other, in lower case, as people type
    joined: Share = 0.0  # with one to three other pairs: a longer text
    renamed: Share = 0.0  # another name or number where both sides have the same one
    quoted: Share = 0.0  # in quotation marks, of any style in the source and plain ones in the target, or in brackets
    copied: Share = 0.0  # with a number, a name, emoji, or another script, the same on both sides; or that alone
    lower_case: Share = 0.0  # a source in lower case, as people type, the target with its capitals
    respelled: Share = 0.0  # a German source without ß (Strasse) and, every other, without umlauts (Muenchen)
    formatted: Share = 0.0  # with a date, a time, a number or an amount, as each of the two languages writes it
    framed: Share = 0.0  # as direct speech in one of ``frames``
    frames: TsvFile | None = None
    templated: Share = 0.0  # one of ``templates``, with people, times, amounts, addresses, emoji in its places
    templates: TsvFile | None = None
    seed: Seed = 1

    @model_validator(mode="after")
    def _check_files(self) -> AugmentConfig:
        for share, files in (("framed", "frames"), ("templated", "templates")):
            if getattr(self, share) and getattr(self, files) is None:
                raise ValueError(f"{share} is {getattr(self, share)}, and no {files} are named")
        return self


class HeldOut(_Section):
    """Groups of pairs with one sentence on the side ``by``, taken out of the training files."""

    validation: Positive
    test: Positive
    by: Literal["source", "target"] = "source"


class FileCorpus(_Section):
    """Where the sentence pairs come from: files, with files or groups held out."""

    kind: Literal["files"]
    training: list[TextFile] = Field(min_length=1)
    validation: list[TextFile] | None = None
    test: list[TextFile] | None = None
    held_out: HeldOut | None = None
    lower_case: bool = False  # all text, as that of some published scores is
    plain_marks: bool = False  # quotation marks of the training text, as ``export.reads_plainly`` has them read
    filters: FilterConfig = FilterConfig()  # of the training files, and of what is held out of them
    augment: AugmentConfig = AugmentConfig()
    judge: Path | None = None  # a bundle, <model>/<version>, by which ``hardest`` of a file is chosen

    @model_validator(mode="after")
    def _check_judge(self) -> FileCorpus:
        made = (self.augment.frames, self.augment.templates)
        whole = [*(self.validation or ()), *(self.test or ()), *(file for file in made if file is not None)]
        if any(entry.share < 1.0 or entry.hardest < 1.0 for entry in whole):
            raise ValueError("share and hardest are of training files: a file for anything else is read whole")
        judged = any(entry.hardest < 1.0 for entry in self.training)
        if judged != (self.judge is not None):
            raise ValueError(
                "a training file has `hardest`: name the bundle that judges it in corpus.judge"
                if judged
                else "judge: no training file has `hardest`, so that nothing is judged"
            )
        return self

    @model_validator(mode="after")
    def _check_parts(self) -> FileCorpus:
        files = [part is not None for part in (self.validation, self.test)]
        if any(files) if self.held_out is not None else not all(files):
            raise ValueError("name validation and test files, or held_out, and not both")
        return self

    @model_validator(mode="after")
    def _check_target_languages(self) -> FileCorpus:
        of_each = {entry.target_language for entry in (*self.training, *(self.validation or ()), *(self.test or ()))}
        if None in of_each and len(of_each) > 1:
            raise ValueError("target_language: name it for every file, or for none")
        return self

    @property
    def target_languages(self) -> frozenset[str]:
        """Those that the model is told to write, by a piece before the source; none where there is but one."""
        return frozenset(entry.target_language for entry in self.training if entry.target_language is not None)


def _kind_of(values: object) -> str:
    kind = values.get("kind", "task") if isinstance(values, dict) else getattr(values, "kind", "task")
    return str(kind)


CorpusConfig = Annotated[
    Annotated[TaskCorpus, Tag("task")] | Annotated[FileCorpus, Tag("files")], Discriminator(_kind_of)
]


class TokenizerConfig(_Section):
    """A SentencePiece model for one side.

    ``char`` and ``word`` take the vocabulary from the training text, whole; ``unigram`` and ``bpe`` learn
    ``vocabulary_size`` pieces from up to ``training_sentences``, and normalise by NFKC. ``sampling``: subword
    regularisation while training, alpha of the unigram model's sampling (Kudo 2018), dropout of BPE's merges.
    """

    kind: Literal["char", "word", "unigram", "bpe"]
    vocabulary_size: Positive | None = None
    training_sentences: Positive = 1_000_000
    sampling: Probability = 0.0

    @model_validator(mode="after")
    def _check_kind(self) -> TokenizerConfig:
        learned = self.kind in ("unigram", "bpe")
        if learned != (self.vocabulary_size is not None):
            raise ValueError(
                f"a tokenizer of the kind {self.kind} {'needs a' if learned else 'has no'} vocabulary_size"
            )
        if self.sampling and not learned:
            raise ValueError(f"sampling is of unigram and bpe, not of {self.kind}: leave it 0")
        return self


class TokenizersConfig(_Section):
    """One for each side; ``shared``: one for both, trained on the text of both, which then have the same settings.

    ``sampling`` is of the training alone, and each side's own. ``symbols_as_bytes``: emoji and other symbols are cut
    into bytes, also where the vocabulary that was learned, or taken from where a run starts, has pieces of them.
    """

    source: TokenizerConfig
    target: TokenizerConfig
    shared: bool = False
    symbols_as_bytes: bool = False

    @model_validator(mode="after")
    def _check_shared(self) -> TokenizersConfig:
        source, target = self.trained
        if self.shared and source != target:
            raise ValueError("a shared tokenizer needs the same settings on both sides, but for sampling")
        if self.symbols_as_bytes and not {source.kind, target.kind} <= {"unigram", "bpe"}:
            raise ValueError("symbols_as_bytes is of unigram and bpe: other vocabularies have no bytes, leave it false")
        return self

    @property
    def trained(self) -> tuple[TokenizerConfig, TokenizerConfig]:
        """What the source's and the target's tokenizer hang on."""
        return self.source.model_copy(update={"sampling": 0.0}), self.target.model_copy(update={"sampling": 0.0})


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


class GuidedAlignmentConfig(_Section):
    """One head of one map is told where to look (Garg et al. 2019, https://arxiv.org/abs/1909.02074).

    ``links``: a file with a line of Pharaoh links (``0-0 1-2``, source-target words between spaces, from 0) for each
    line of the run's ``data/training.tsv``, such as `heed-train align --links` writes. ``weight``: lambda of the paper.
    """

    links: Path
    map: str
    head: Annotated[int, Field(ge=0)] = 0
    weight: Annotated[float, Field(gt=0.0)] = 0.05


class TrainingConfig(_Section):
    """The optimisation.

    One update sees ``accumulate`` batches, which all processes share; a batch is sentences of like length, of at most
    ``batch_tokens`` padded source plus target tokens, or, where ``batch_sentences`` is set, so many sentences of any
    length. Tokens are those of the plain cut; one drawn at random (``sampling``) is longer, at alpha 0.3 by half.
    Rates: ``training.schedules``; what is kept and when to stop: ``training.selection``.
    """

    updates: Positive
    batch_tokens: Positive = 12_000
    batch_sentences: Positive | None = None
    accumulate: Positive = 1
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-3
    schedule: Literal["cosine", "constant", "inverse_sqrt", "plateau"] = "cosine"
    warmup_updates: Annotated[int, Field(ge=0)] = 500
    plateau_patience: Positive = 3  # validations that are no better before the rate falls
    plateau_factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    adam_betas: tuple[Probability, Probability] = (0.9, 0.98)
    adam_epsilon: Annotated[float, Field(gt=0.0)] = 1e-9
    label_smoothing: Probability = 0.0
    r_drop: Annotated[float, Field(ge=0.0)] = 0.0  # alpha of Liang et al. 2021; 0: one pass
    guided_alignment: GuidedAlignmentConfig | None = None
    gradient_norm: Annotated[float, Field(gt=0.0)] = 1.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None  # validated and exported in the weights' place
    validate_every: Positive = 1000
    validation_sentences: Annotated[int, Field(ge=0)] = 0  # translated at each validation, for BLEU and chrF
    select_by: Literal["exact_match", "loss", "accuracy", "bleu", "chrf"] = "exact_match"
    keep_best: Positive = 1
    keep_last: Annotated[int, Field(ge=0)] = 0
    patience: Annotated[int, Field(ge=0)] = 0  # validations that are no better before the run ends; 0: never
    save_every: Positive | None = None  # updates between two states to continue from; None: at validations
    log_every: Positive = 50
    seed: Seed = 1
    threads: Annotated[int, Field(ge=0)] = 0  # 0: as many as the machine has

    @model_validator(mode="after")
    def _check_selection(self) -> TrainingConfig:
        if self.select_by in ("bleu", "chrf") and not self.validation_sentences:
            raise ValueError(f"select_by is {self.select_by}, and validation_sentences is 0: translate some")
        if self.r_drop and self.guided_alignment is not None:
            raise ValueError(f"r_drop is {self.r_drop}, and guided_alignment is set: choose one of them")
        return self


class LimitsConfig(_Section):
    """What the service will accept and emit, in tokens, `</s>` included."""

    max_source_tokens: Positive
    max_target_tokens: Positive


class GoldenText(_Section):
    """A sentence that every load translates, for a model of several target languages."""

    source: str
    target_language: str


class Interpolation(_Section):
    """Weights between those that a run ended with and those of a ``start``, a run's directory or a bundle's, of which
    it takes a ``share``: what the start knew is kept, and what was learned too (Wortsman et al. 2022, "Robust
    fine-tuning of zero-shot models", https://arxiv.org/abs/2109.01903)."""

    start: Path
    share: Annotated[float, Field(gt=0.0, lt=1.0)]


class StartInterpolation(_Section):
    """Weights on the line through those of `start_from` and those ``between``, of which it takes a ``share``.

    A negative share goes on, away from them: what was exported a part of the way back to ``between`` is had again as it
    was trained, with its rounding as many times larger (Ilharco et al. 2023, "Editing models with task arithmetic",
    https://arxiv.org/abs/2212.04089, section 3).
    """

    between: Path  # a run's directory or a bundle's
    share: Annotated[float, Field(ge=-4.0, lt=1.0)]


class ExportConfig(_Section):
    """What goes into the bundle beside the weights. A golden sentence that is a list is a document, its last sentence
    the one to translate."""

    description: str
    license: str
    attribution: list[str] = []
    #: "start": those of `start_from` as they are, to export a bundle anew by other settings; nothing need be trained.
    weights: Literal["best", "average_best", "average_last", "start"] = "best"
    interpolation: Interpolation | None = None
    weights_dtype: Literal["float32", "float16"] = "float32"  # of the file; computing is in float32
    int8: bool = False  # graphs in int8 beside those in float32 (``training.quantization``)
    limits: LimitsConfig
    reads_plainly: bool = False  # words in capitals truecased, quotation marks plain (``service.bundle.reading``)
    splits_sentences: bool = False  # the service cuts texts into sentences, where the model has read single ones
    beam_size: Annotated[int, Field(ge=1, le=64)] = 1  # of calls that do not say it; 1: greedy search
    length_penalty: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0  # likewise
    keeps_literals: bool = False  # the service looks for emoji, addresses and the like in translations, and asks again
    finds_omissions: bool = False  # likewise for words hardly looked at; of models with an alignment
    #: A model of the other direction, by name: the service has it read translations back, and chooses the truest.
    read_back_by: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] | None = None
    golden_sentences: list[str | Annotated[list[str], Field(min_length=1)] | GoldenText] = Field(min_length=1)


class Config(_Section):
    """One run, from corpus to bundle."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    version: Positive = 1
    run_directory: Path
    start_from: Path | None = None  # another run's directory, or a bundle's, whose tokenizers and weights it takes
    start_interpolation: StartInterpolation | None = None  # or weights between those and others, or past them
    languages: Languages
    corpus: CorpusConfig
    tokenizers: TokenizersConfig
    model: ModelConfig
    training: TrainingConfig
    export: ExportConfig

    @property
    def task(self) -> Task | None:
        """The generator of the corpus; None where it comes from files."""
        return TASKS[self.corpus.task] if isinstance(self.corpus, TaskCorpus) else None

    @model_validator(mode="after")
    def _check_weights(self) -> Config:
        """What is to be averaged must have been kept."""
        wanted, training = self.export.weights, self.training
        for weights, key, kept in (
            ("average_best", "keep_best", training.keep_best),
            ("average_last", "keep_last", training.keep_last),
        ):
            if wanted == weights and kept < 2:
                raise ValueError(f"export.weights is {wanted}, and training.{key} is {kept}: keep 2 or more")
        if wanted == "start" and self.start_from is None:
            raise ValueError("export.weights is start, and there is no start_from")
        if self.start_interpolation is not None and self.start_from is None:
            raise ValueError("start_interpolation is between start_from and another, and there is no start_from")
        if wanted == "start" and self.export.interpolation is not None:
            raise ValueError("export.interpolation is between a run and a start, and export.weights is start")
        return self

    @model_validator(mode="after")
    def _check_target_languages(self) -> Config:
        told = self.corpus.target_languages if isinstance(self.corpus, FileCorpus) else frozenset[str]()
        if told and told != set(self.languages.target):
            raise ValueError(
                f"corpus.training has the target languages {', '.join(sorted(told))}, and languages.target is "
                f"{', '.join(self.languages.target)}: they must be the same"
            )
        for golden in self.export.golden_sentences:
            language = golden.target_language if isinstance(golden, GoldenText) else None
            if language not in (told or [None]):
                wanted = f"source and target_language, one of {', '.join(sorted(told))}" if told else "a plain sentence"
                raise ValueError(f"export.golden_sentences has {golden!r}: write it as {wanted}")
        return self

    @model_validator(mode="after")
    def _check_augment(self) -> Config:
        if not isinstance(self.corpus, FileCorpus):
            return self
        augment = self.corpus.augment
        for share, files in (("framed", "frames"), ("templated", "templates")):
            if getattr(augment, share) and self.corpus.target_languages:
                raise ValueError(
                    f"corpus.augment.{share} is set, and files name a target_language: {files} are of one only"
                )
        for made in ("formatted", "templated"):
            if share := getattr(augment, made):
                self._check_locales(f"corpus.augment.{made} is {share}")
        return self

    def _check_locales(self, what: str) -> None:
        for side, codes in (("source", self.languages.source), ("target", self.languages.target)):
            try:
                (code,) = codes
                Locale.parse(code, sep="-")
            except (ValueError, UnknownLocaleError) as error:
                raise ValueError(
                    f"{what}, and languages.{side} is {', '.join(codes)}: it needs one language on each side, whose "
                    "dates Babel knows"
                ) from error

    @model_validator(mode="after")
    def _check_int8(self) -> Config:
        if self.export.int8 and not isinstance(self.model, TransformerConfig):
            raise ValueError(
                f"export.int8 is true, and model.family is {self.model.family}: the runtime has no static int8 for its "
                "layers, set it to false"
            )
        return self

    @model_validator(mode="after")
    def _check_context(self) -> Config:
        wanted = self.model.context_sentences if isinstance(self.model, RecurrentConfig) else 0
        given = 0 if self.task is None else self.task.context_sentences
        if wanted not in (0, given):
            raise ValueError(
                f"model.context_sentences is {wanted}, and the corpus has {given} before each "
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
    """Read and check a YAML config, laid over its ``base`` where it names one.

    Raises ConfigError, naming the key, the value and what is allowed; relative paths stay relative to where the
    command runs.
    """
    values = read_values(path)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = dict.fromkeys(_describe(entry) for entry in error.errors())  # a union says the same of each branch
        raise ConfigError(f"{path}: " + "; ".join(problems)) from error


_BRANCHES = ("str", "list[str]", "GoldenText", *_FILE_FORMS)  # of a union, which pydantic names as if they were keys


def _describe(entry: object) -> str:
    assert isinstance(entry, dict)
    place = [str(part) for part in entry["loc"] if part not in _BRANCHES]
    if place[0:1] in (["model"], ["corpus"]) and len(place) > 1:  # pydantic names the kind as if it were a section
        del place[1:2]
    if not place and entry["type"] == "value_error":  # of the whole, which need not be shown
        return str(entry["msg"]).removeprefix("Value error, ")
    key = ".".join(place) or "the file"
    if entry["type"] == "union_tag_not_found":
        return f"missing key {key}.family"
    if entry["type"] == "union_tag_invalid":
        tag = {"model": "family", "corpus": "kind"}[key]
        return f"{key}.{tag} = {entry['input'][tag]!r}: Input should be one of {entry['ctx']['expected_tags']}"
    if entry["type"] == "extra_forbidden":
        return f"unknown key {key}"
    if entry["type"] == "missing":
        return f"missing key {key}"
    return f"{key} = {entry['input']!r}: {entry['msg']}"
