"""The command ``heed-train``: one YAML config, five stages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training.config import load_config
from training.errors import ConfigError, TrainingError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train a translation model and export it as a bundle that `heed serve` runs.\n\n"
    "Example: heed-train prepare dates.yaml && heed-train train dates.yaml && heed-train export dates.yaml",
)
_console = Console()

ConfigPath = Annotated[Path, typer.Argument(help="The run's YAML file, such as training/configs/dates.yaml.")]


@app.command()
def prepare(config: ConfigPath) -> None:
    """Make the corpus and the tokenizers. Example: heed-train prepare training/configs/dates.yaml"""
    from training.corpus import prepare as prepare_corpus

    prepare_corpus(load_config(config), _say)


@app.command()
def train(config: ConfigPath) -> None:
    """Train, or continue a run that was stopped. Ctrl-C stops after the update at hand and saves.

    Example: heed-train train training/configs/dates.yaml
    """
    settings = load_config(config)
    from training.corpus import Corpus
    from training.distributed import joined
    from training.memory import keep_freed_memory
    from training.trainer import Trainer, choose_device

    keep_freed_memory()
    with joined(choose_device(settings)) as processes:
        finished = Trainer(settings, Corpus(settings.run_directory / "data"), _console, processes).train()
    if not finished:
        _console.print("stopped before the last update; the same command continues")
        raise typer.Exit(130)


@app.command()
def export(
    config: ConfigPath,
    output: Annotated[Path, typer.Option(help="The repository of bundles to write into.")] = Path("exported"),
) -> None:
    """Export the best checkpoint as a bundle, after proving that it computes what PyTorch computes.

    Example: heed-train export training/configs/dates.yaml
    """
    settings = load_config(config)
    from training.corpus import Corpus
    from training.export import export_bundle

    bundle = export_bundle(settings, Corpus(settings.run_directory / "data"), output, _say)
    _say(f"wrote {bundle}")


@app.command()
def align(
    config: ConfigPath,
    text: Annotated[Path | None, typer.Option(help="Pairs `source ||| target`, words between spaces.")] = None,
    gold: Annotated[Path | None, typer.Option(help="Their links by people, i-j sure and ipj possible, from 1.")] = None,
    links: Annotated[Path | None, typer.Option(help="Write the links of the training pairs into this file.")] = None,
) -> None:
    """Choose the map that aligns best with links by people (AER), or write the links of the training corpus.

    Example: heed-train align en-fr.yaml --text enfr.src-tgt --gold enfr.gold
    """
    if (text is None) != (gold is None) or (gold is None and links is None):
        raise ConfigError("give --text with --gold, or --links, or all three")
    settings = load_config(config)
    from training.align import choose_alignment, write_links
    from training.corpus import Corpus

    corpus = Corpus(settings.run_directory / "data")
    if text is not None and gold is not None:
        chosen = choose_alignment(settings, corpus, text, gold, _console)
        _say(f"chosen: {chosen.map}, heads {chosen.heads}, shift {chosen.shift}: {chosen.chosen_by}")
    if links is not None:
        write_links(settings, corpus, links, _say)


@app.command()
def evaluate(
    config: ConfigPath,
    models: Annotated[Path, typer.Option(help="The repository that holds the exported bundle.")] = Path("exported"),
    limit: Annotated[int, typer.Option(min=1, help="How many sentences at most.")] = 10_000,
    seed: Annotated[int | None, typer.Option(help="Make fresh strings now instead of reading the test set.")] = None,
    beam: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Of text: hypotheses of a beam, 1 is greedy search; or as exported."),
    ] = None,
    length_penalty: Annotated[
        float, typer.Option(min=0.0, help="Of text, with --beam: 0 the likeliest, 1 the likeliest by token.")
    ] = 0.0,
) -> None:
    """Translate the test set with the service's own engine; print its scores: of a task exact match and attention
    accuracy, of text BLEU, chrF and exact match by the length of the source.

    Example: heed-train evaluate training/configs/dates.yaml --limit 50000 --seed 7
    """
    settings = load_config(config)
    from service.engine.decoding import Decoding
    from training.evaluate import evaluate_bundle, evaluate_texts

    if settings.task is None and seed is None:
        decoding = None if beam is None else Decoding(beam_size=beam, length_penalty=length_penalty)
        evaluate_texts(settings, models, limit, _console, decoding)
    else:
        evaluate_bundle(settings, models, limit, seed, _console)


def _say(line: str) -> None:
    _console.print(line, highlight=False, markup=False, emoji=False)


def main() -> None:
    """Run the command; an error that the user can mend is one line and exit status 1."""
    try:
        app()
    except TrainingError as error:
        Console(stderr=True, soft_wrap=True).print(
            f"heed-train: {error}", style="red", highlight=False, markup=False, emoji=False
        )
        raise SystemExit(1) from None


if __name__ == "__main__":  # as torchrun starts it
    main()
