"""How fast the trainer is: against a plain loop around nn.Transformer, its own bf16, and JoeyNMT.

    python -m benchmarks.training prepare data/multi30k        corpus and tokenizer, once
    OMP_NUM_THREADS=2 python -m benchmarks.training bf16                 our bf16 against our fp32
    OMP_NUM_THREADS=2 python -m benchmarks.training plain                our fp32 against nn.Transformer
    OMP_NUM_THREADS=2 python -m benchmarks.training joeynmt PYTHON       of an environment with joeynmt 2.3

Real ragged sentences (Multi30k, one SentencePiece vocabulary of 8,000), d 256, feed-forward 1024, 4 + 4 layers, 4
heads, batches of 4,096 padded target tokens, Adam, clipping, dropout 0.1, label smoothing 0.1. Non-padding target
tokens a second. The contenders take turns at each update, and a ratio is the median of the updates' own: a
neighbour's burst on a shared machine hits both or is one of many.
"""

from __future__ import annotations

import math
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
import yaml
from sentencepiece import SentencePieceProcessor
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from benchmarks.measuring import ROOT
from service.bundle.tokenizer import PAD_ID
from training.batches import Batch, make_batch, plan_epoch
from training.config import Config, load_config
from training.corpus import Corpus, prepare
from training.memory import keep_freed_memory
from training.models import build
from training.models.transformer import sinusoids
from training.objective import Objective

UPDATES, JOEY_UPDATES = 40, 20
CONFIG = ROOT / "training" / "configs" / "benchmark-training.yaml"
app = typer.Typer(no_args_is_help=True, add_completion=False)


class Plain(nn.Module):
    """What a tutorial builds around ``nn.Transformer``: the same sizes, every logit computed, padding not judged."""

    def __init__(self, config: Config, vocabulary: int) -> None:
        super().__init__()
        model = config.model
        self.size = model.size  # type: ignore[union-attr]
        self.embedding = nn.Embedding(vocabulary, self.size)
        self.transformer = nn.Transformer(
            self.size,
            model.heads,  # type: ignore[union-attr]
            model.encoder_layers,  # type: ignore[union-attr]
            model.decoder_layers,  # type: ignore[union-attr]
            model.feed_forward,  # type: ignore[union-attr]
            model.dropout,  # type: ignore[union-attr]
            batch_first=True,
            norm_first=True,
        )
        self.output = nn.Linear(self.size, vocabulary)
        self.output.weight = self.embedding.weight

    def forward(self, batch: Batch) -> Tensor:
        source, target = self._embed(batch.source_ids), self._embed(batch.target_inputs)
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        padding = batch.source_ids == PAD_ID
        hidden = self.transformer(
            source,
            target,
            tgt_mask=causal,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )
        logits = self.output(hidden).flatten(0, 1)
        return functional.cross_entropy(
            logits, batch.target_ids.flatten(), ignore_index=PAD_ID, label_smoothing=0.1, reduction="sum"
        )

    def _embed(self, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1]).unsqueeze(0)
        embedded: Tensor = self.embedding(ids) * math.sqrt(self.size) + sinusoids(positions, self.size)
        return embedded


@app.command(name="prepare")
def prepare_corpus(
    multi30k: Annotated[Path, typer.Argument(help="The folder with train.en.gz and its fellows.")],
) -> None:
    """Make the corpus that the other commands read."""
    values = load_config(CONFIG).model_dump()
    for part, stem in (("training", "train"), ("validation", "val"), ("test", "test_2016_flickr")):
        values["corpus"][part] = [{"source": multi30k / f"{stem}.en.gz", "target": multi30k / f"{stem}.de.gz"}]
    prepare(Config.model_validate(values), print)


@app.command()
def bf16(updates: int = UPDATES) -> None:
    """Our bfloat16 against our float32."""
    _compare(("ours, bf16", "ours, fp32"), updates)


@app.command()
def plain(updates: int = UPDATES) -> None:
    """Our float32 against a plain loop around ``nn.Transformer``."""
    _compare(("ours, fp32", "plain nn.Transformer"), updates)


def _compare(names: tuple[str, str], updates: int) -> None:
    """Print both rates, and the median of the first one's over the second's."""
    keep_freed_memory()
    config, corpus = load_config(CONFIG), Corpus(load_config(CONFIG).run_directory / "data")
    vocabulary, arrays = corpus.tokenizer("source").vocabulary_size, corpus.arrays("training")
    plan = plan_epoch(arrays, config.training.batch_tokens, seed=1, epoch=0)
    batches = [make_batch(arrays, sentences) for sentences in plan[:updates]]
    contenders = [_contender(name, config, vocabulary) for name in names]
    for contender in contenders:  # a training has seen all its shapes, and so have these: not timed
        contender(batches)
    taken = np.array([[contender([batch]) for contender in contenders] for batch in batches])
    for name, seconds in zip(names, taken.sum(0), strict=True):
        print(f"{name}: {sum(batch.target_tokens for batch in batches) / seconds:,.0f} target tokens/s", flush=True)
    low, median, high = np.quantile(taken[:, 1] / taken[:, 0], [0.1, 0.5, 0.9])
    print(f"{names[0]} / {names[1]}: {median:.2f}x (80 % of the updates: {low:.2f}-{high:.2f})")


def _contender(name: str, config: Config, vocabulary: int) -> Callable[[list[Batch]], float]:
    if name.startswith("plain"):
        return _trained(Plain(config, vocabulary))
    objective = Objective(build(config.model, vocabulary, vocabulary), config.training)
    return _trained(objective, torch.bfloat16 if name.endswith("bf16") else None)


def _trained(model: nn.Module, autocast: torch.dtype | None = None) -> Callable[[list[Batch]], float]:
    """Seconds for updates on some batches."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.98), fused=True)
    model.train()

    def run(batches: list[Batch]) -> float:
        started = time.perf_counter()
        for batch in batches:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", autocast, enabled=autocast is not None):
                loss = model(batch)
            (loss / batch.target_tokens).backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            loss.item()
        return time.perf_counter() - started

    return run


@app.command()
def joeynmt(python: Annotated[Path, typer.Argument(help="Of an environment with joeynmt.")], rounds: int = 3) -> None:
    """JoeyNMT's own trainer on the same text and sizes, and ours beside it in each round."""
    keep_freed_memory()
    config, corpus = load_config(CONFIG), Corpus(load_config(CONFIG).run_directory / "data")
    directory = config.run_directory / "joeynmt"
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = corpus.tokenizer("source").vocabulary_size
    arrays = corpus.arrays("training")
    own = _trained(Objective(build(config.model, vocabulary, vocabulary), config.training))
    plan = plan_epoch(arrays, config.training.batch_tokens, seed=2, epoch=0)
    own([make_batch(arrays, plan[-1])])
    ratios = []
    for number in range(rounds):
        theirs = _run_joeynmt(python, directory, corpus, number)
        batches = [
            make_batch(arrays, sentences) for sentences in plan[number * JOEY_UPDATES : (number + 1) * JOEY_UPDATES]
        ]
        ours_rate = sum(batch.target_tokens for batch in batches) / own(batches)
        ratios.append(ours_rate / theirs)
        print(f"round {number + 1}: ours {ours_rate:,.0f}, JoeyNMT {theirs:,.0f} target tokens/s: {ratios[-1]:.2f}x")
    print(f"ours / JoeyNMT: {sorted(ratios)[len(ratios) // 2]:.2f}x ({min(ratios):.2f}-{max(ratios):.2f})")


def _run_joeynmt(python: Path, directory: Path, corpus: Corpus, number: int) -> float:
    """The mean of the rates that JoeyNMT logs, its first line left out."""
    for part, name in (("training", "train"), ("validation", "dev")):
        for side, column in (("source", "src"), ("target", "trg")):
            lines = [getattr(example, side) for example in corpus.examples(part)]
            (directory / f"{name}.{column}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    processor = corpus.tokenizer_path("source")
    pieces = SentencePieceProcessor(model_file=str(processor))
    listed = [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())]
    (directory / "vocabulary.txt").write_text("\n".join(listed) + "\n", encoding="utf-8")
    settings = _joeynmt_config(directory, processor, number)
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    run = subprocess.run(
        [str(python), "-m", "joeynmt", "train", str(path), "--skip-test"], capture_output=True, text=True, check=False
    )
    found = [float(rate) for rate in re.findall(r"Tokens per Sec:\s+([\d.]+)", run.stdout + run.stderr)]
    if len(found) < 2:
        raise SystemExit(f"JoeyNMT gave no rates:\n{(run.stdout + run.stderr)[-2000:]}")
    return sum(found[1:]) / len(found[1:])


def _joeynmt_config(directory: Path, tokenizer: Path, number: int) -> dict[str, object]:
    side = {
        "max_length": 100,
        "level": "bpe",
        "voc_file": str(directory / "vocabulary.txt"),
        "tokenizer_type": "sentencepiece",
        "tokenizer_cfg": {"model_file": str(tokenizer)},
    }
    layers = {
        "type": "transformer",
        "num_layers": 4,
        "num_heads": 4,
        "embeddings": {"embedding_dim": 256, "scale": True, "dropout": 0.0},
        "hidden_size": 256,
        "ff_size": 1024,
        "dropout": 0.1,
        "layer_norm": "pre",
    }
    return {
        "name": "speed",
        "joeynmt_version": "2.3.0",
        "model_dir": str(directory / f"model-{number}"),
        "use_cuda": False,
        "fp16": False,
        "random_seed": 42,
        "data": {
            "train": str(directory / "train"),
            "dev": str(directory / "dev"),
            "dataset_type": "plain",
            "src": {"lang": "src", **side},
            "trg": {"lang": "trg", **side},
        },
        "testing": {"beam_size": 1, "batch_size": 64, "eval_metrics": []},
        "training": {
            "optimizer": "adam",
            "learning_rate": 1e-4,
            "scheduling": "warmupinversesquareroot",
            "learning_rate_warmup": 100,
            "normalization": "tokens",
            "loss": "crossentropy",
            "label_smoothing": 0.1,
            "batch_size": 4096,
            "batch_type": "token",
            "updates": JOEY_UPDATES,
            "epochs": 1,
            "logging_freq": 5,
            "validation_freq": 100_000,
            "overwrite": True,
            "shuffle": True,
        },
        "model": {
            "initializer": "xavier_uniform",
            "embed_initializer": "xavier_uniform",
            "tied_embeddings": True,
            "tied_softmax": True,
            "encoder": layers,
            "decoder": layers,
        },
    }


if __name__ == "__main__":
    app()
