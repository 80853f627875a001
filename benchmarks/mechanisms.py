"""Every mechanism of attention at one small size and one fixed budget, on reverse and on dates: the table and the plot.

    OMP_NUM_THREADS=1 python -m benchmarks.mechanisms train reverse     (dates beside it, on the other core)
    python -m benchmarks.mechanisms report

``train`` makes the corpus, then trains, exports and measures what is not measured yet, each through the service's own
engine; ``report`` prints the table of docs/models.md and draws the plot of accuracy against length.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from rich.console import Console

from benchmarks.curves import Curve, draw_curves
from benchmarks.measuring import ROOT, SEED
from service.bundle.repository import Bundle, Repository
from service.engine.engine import Engine, EngineSettings
from service.engine.onnx_model import open_model
from service.engine.sentence import SentenceRequest
from training.config import Config, TaskCorpus, load_config
from training.corpus import prepare
from training.evaluate import greatest_weights, score_examples
from training.export import export_bundle
from training.tasks import TASKS, Example, TaskName, reverse
from training.trainer import Trainer

#: What each form changes in the config of its task (training/configs/mechanisms-<task>.yaml).
FORMS: dict[str, dict[str, object]] = {
    "additive": {"attention": "additive"},
    "concat": {"attention": "concat"},
    "dot": {"attention": "dot"},
    "scaled dot": {"attention": "scaled_dot"},
    "general": {"attention": "general"},
    "cosine": {"attention": "cosine"},
    "kernel": {"attention": "kernel"},
    "location": {"attention": "location"},
    "multi-head": {"attention": "multi_head"},
    "hard": {"attention": "hard", "score": "general"},
    "local-m": {"attention": "local_m", "score": "general"},
    "local-p": {"attention": "local_p", "score": "general"},
    "attention over attention": {"attention": "attention_over_attention", "score": "general"},
    "average pooling": {"attention": "average"},
    "max pooling": {"attention": "max"},
    "none": {"attention": "none"},
    "general, input feeding": {"attention": "general", "input_feeding": True},
    "additive, state s + c": {"attention": "additive", "decoder": "additive"},
    "additive, one-way GRU, LSTM decoder": {
        "attention": "additive",
        "bidirectional": False,
        "encoder": "gru",
        "decoder": "lstm",
    },
}
TRANSFORMER = "Transformer"
TRANSFORMER_CONFIG = {
    "family": "transformer",
    "size": 64,
    "heads": 4,
    "feed_forward": 256,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "positions": "rotary",
    "dropout": 0.0,
}
PLOTTED = ("additive", "location", "none", "average pooling", TRANSFORMER)
BY_LENGTH = 100  # sentences of each length
SEEN, UNSEEN = range(1, 26), range(26, 51)  # lengths
DATES = 5000

app = typer.Typer(no_args_is_help=True, add_completion=False)


@dataclass(frozen=True)
class Result:
    """One form on one task; shares of one. ``by_length``: of reverse, exact match at lengths 1, 2, …"""

    parameters: int
    cpu_minutes: float
    exact: float
    attention_accuracy: float
    unseen_exact: float | None = None
    unseen_attention_accuracy: float | None = None
    by_length: tuple[float, ...] = ()


def form_of(base: Config, form: str) -> Config:
    """A form's config, in a run of its own."""
    values = base.model_dump()
    if form == TRANSFORMER:
        values["model"] = {**TRANSFORMER_CONFIG, "max_positions": values["model"]["max_positions"]}
    else:
        values["model"] |= FORMS[form]
    values["run_directory"] = base.run_directory / "".join(c if c.isalnum() else "-" for c in form.lower())
    return Config.model_validate(values)


@app.command()
def train(
    task: Annotated[Literal["reverse", "dates"], typer.Argument()],
    form: Annotated[list[str] | None, typer.Option(help="This form alone; may be repeated.")] = None,
) -> None:
    """Train, export and measure every form that has no result yet."""
    base = load_config(ROOT / "training" / "configs" / f"mechanisms-{task}.yaml")
    corpus = prepare(base, print)
    for name in form or (*FORMS, TRANSFORMER):
        config = form_of(base, name)
        output = config.run_directory / "result.json"
        if output.is_file():
            continue
        trainer = Trainer(config, corpus, Console())
        timed = config.run_directory / "cpu_minutes.txt"
        before = float(timed.read_text(encoding="ascii")) if timed.is_file() else 0.0
        started = time.process_time()
        finished = trainer.train()
        minutes = before + (time.process_time() - started) / 60
        timed.write_text(f"{minutes:.3f}\n", encoding="ascii")
        if not finished:
            raise typer.Exit(130)
        models = config.run_directory / "models"
        export_bundle(config, corpus, models, print)
        parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
        result = Result(parameters, minutes, **_measure(config, models))  # type: ignore[arg-type]
        output.write_text(json.dumps(asdict(result)) + "\n", encoding="utf-8")
        print(name, result, flush=True)


def _measure(config: Config, models: Path) -> Mapping[str, object]:
    bundle = Repository(models).load(config.name, config.version)
    if isinstance(config.corpus, TaskCorpus) and config.corpus.task == "dates":
        examples = list(itertools.islice(TASKS["dates"].examples(SEED), DATES))
        scores, _ = score_examples(config, bundle, examples)
        return {"exact": scores.exact_match, "attention_accuracy": scores.attention_accuracy}
    seen, unseen = (_of_lengths(lengths) for lengths in (SEEN, UNSEEN))
    (known, found), (new, found_new) = (score_examples(config, bundle, examples) for examples in (seen, unseen))
    right = [text == example.target for example, text in zip(seen + unseen, found + found_new, strict=True)]
    return {
        "exact": known.exact_match,
        "attention_accuracy": known.attention_accuracy,
        "unseen_exact": new.exact_match,
        "unseen_attention_accuracy": new.attention_accuracy if new.attention_judged else None,
        "by_length": np.reshape(right, (-1, BY_LENGTH)).mean(axis=1).tolist(),
    }


def _of_lengths(lengths: range) -> list[Example]:
    streams = (reverse.examples_of_length(length, length, SEED + length) for length in lengths)
    return [example for stream in streams for example in itertools.islice(stream, BY_LENGTH)]


@app.command()
def report() -> None:
    """Print the table, draw the plot, and keep every figure beside it."""
    tasks: tuple[TaskName, ...] = ("reverse", "dates")
    results = {form: {task: _read(task, form) for task in tasks} for form in (*FORMS, TRANSFORMER)}
    for form, by_task in results.items():
        numbers, dates = by_task["reverse"], by_task["dates"]
        shares = (
            numbers.exact,
            numbers.attention_accuracy,
            numbers.unseen_exact,
            numbers.unseen_attention_accuracy,
            dates.exact,
            dates.attention_accuracy,
        )
        shown = " | ".join(
            "–" if share is None or (form == "none" and place % 2) else f"{share:.2%}"
            for place, share in enumerate(shares)
        )
        minutes = numbers.cpu_minutes + dates.cpu_minutes
        print(f"| {form} | {numbers.parameters:,} | {dates.parameters:,} | {minutes:.1f} | {shown} |")
    curves = []
    for form in PLOTTED:
        by_length = enumerate(results[form]["reverse"].by_length, start=1)
        curves.append(Curve(form, [(length, 100 * share) for length, share in by_length]))
    pictures = ROOT / "docs" / "pictures"
    title = "reverse: exact match by length; trained on 1 to 25"
    draw_curves(pictures / "mechanisms.svg", title, "numbers", "% exact", curves, logarithmic=False)
    figures = {form: {task: asdict(result) for task, result in by_task.items()} for form, by_task in results.items()}
    (pictures / "mechanisms.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


@app.command()
def places() -> None:
    """Print where each form looks on reverse, counted from the mirrored number: its three commonest places."""
    base = load_config(ROOT / "training" / "configs" / "mechanisms-reverse.yaml")
    examples = [example for length in (15, 22) for example in _of_lengths(range(length, length + 1))]
    for form in (*FORMS, TRANSFORMER):
        config = form_of(base, form)
        bundle = Repository(config.run_directory / "models").load(config.name, config.version)
        if bundle.manifest.alignment is None:
            continue
        found: Counter[int] = Counter()
        for example, looked_at in zip(examples, looked_at_of(bundle, examples), strict=True):
            numbers = len(example.source.split(" "))
            found.update(place - (numbers - 1 - row) for row, place in enumerate(looked_at))
        total = sum(found.values())
        print(form, ", ".join(f"{place:+d}: {count / total:.1%}" for place, count in found.most_common(3)), flush=True)


def looked_at_of(bundle: Bundle, examples: list[Example]) -> list[list[int]]:
    """For each number that is written the source token of greatest weight."""
    engine = Engine(open_model(bundle), EngineSettings(workers=1))
    limit = bundle.manifest.limits.max_target_tokens
    try:
        requests = [
            SentenceRequest(tuple(bundle.source_tokenizer.encode_ids(example.source)), limit, attention="alignment")
            for example in examples
        ]
        return [greatest_weights(bundle, result.hypotheses[0]) for result in engine.translate(requests)]
    finally:
        engine.stop()


def _read(task: TaskName, form: str) -> Result:
    base = load_config(ROOT / "training" / "configs" / f"mechanisms-{task}.yaml")
    return Result(**json.loads((form_of(base, form).run_directory / "result.json").read_text(encoding="utf-8")))


if __name__ == "__main__":
    app()
