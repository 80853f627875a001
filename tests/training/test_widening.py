"""Wider feed-forward networks: the same at first, and no longer once trained."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from tests.training.conftest import ignore_progress, tiny_values
from training.config import Config, TransformerConfig
from training.corpus import prepare
from training.errors import CheckpointError
from training.export import export_bundle
from training.models.transformer import Transformer
from training.trainer import Trainer
from training.widening import widened

PIECES = 30
SHAPE: dict[str, Any] = {"family": "transformer", "size": 16, "heads": 2, "encoder_layers": 2, "decoder_layers": 1}
SHAPE |= {"max_positions": 40, "tied_embeddings": "all", "dropout": 0.0}


def new_model(feed_forward: int, seed: int) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(TransformerConfig.model_validate(SHAPE | {"feed_forward": feed_forward}), PIECES, PIECES)


def logits(model: Transformer) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    source = torch.randint(4, PIECES, (3, 7), generator=generator)
    target = torch.randint(4, PIECES, (3, 5), generator=generator)
    return model(source, torch.tensor([7, 5, 2], dtype=torch.int32), target).logits


@pytest.mark.parametrize("wide", [24, 25, 64])
def test_it_computes_the_same_at_first(wide: int) -> None:
    narrow, model = new_model(24, seed=1), new_model(wide, seed=2)
    model.load_state_dict(widened(narrow.state_dict(), model))
    torch.testing.assert_close(logits(model), logits(narrow))


def test_what_is_as_wide_already_stays_as_it_is() -> None:
    stored = new_model(24, seed=1).state_dict()
    found = widened(stored, new_model(24, seed=2))
    assert found.keys() == stored.keys()
    assert all(found[name] is stored[name] for name in stored)


def test_every_new_weight_learns() -> None:
    """The outer ones at the first update, the inner ones from the second."""
    narrow, model = new_model(24, seed=1), new_model(40, seed=2)
    model.load_state_dict(widened(narrow.state_dict(), model))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        torch.logsumexp(logits(model), dim=-1).sum().backward()
        optimizer.step()
    for name, weights in model.named_parameters():
        if name.endswith("feed_forward.outer.weight"):
            assert (weights[:, 24:] != 0).any(dim=0).float().mean() > 0.5, name
        if name.endswith("feed_forward.inner.weight"):
            assert weights.grad is not None
            assert (weights.grad[24:] != 0).any(dim=1).float().mean() > 0.5, name


def transformer_config(folder: Path, feed_forward: int, start: Path | None = None) -> Config:
    values = tiny_values(folder, training={"updates": 3})
    both = {"source": {"kind": "word"}, "target": {"kind": "word"}, "shared": True}
    values |= {"model": SHAPE | {"feed_forward": feed_forward}, "tokenizers": both}
    values["export"] = values["export"] | {"weights_dtype": "float16"}
    return Config.model_validate(values | ({} if start is None else {"start_from": str(start)}))


def new_trainer(config: Config) -> Trainer:
    return Trainer(config, prepare(config, ignore_progress), Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of 24 inner units, and its bundle. Shared: not to be written to."""
    folder = tmp_path_factory.mktemp("narrow")
    config = transformer_config(folder, 24)
    assert new_trainer(config).train()
    corpus = prepare(config, ignore_progress)
    return {"run": config.run_directory, "bundle": export_bundle(config, corpus, folder / "exported", ignore_progress)}


@pytest.mark.parametrize("kind", ["run", "bundle"])
def test_a_run_begins_with_a_narrower_run_or_bundle(starts: dict[str, Path], kind: str, tmp_path: Path) -> None:
    same = new_trainer(transformer_config(tmp_path / "same", 24, starts[kind])).model.eval()
    config = transformer_config(tmp_path / "wide", 40, starts[kind])
    trainer = new_trainer(config)
    source, target = torch.tensor([[4, 5, 6, 7]]), torch.tensor([[2, 4, 5]])
    found, wanted = (
        model(source, torch.tensor([4], dtype=torch.int32), target).logits for model in (trainer.model.eval(), same)
    )
    torch.testing.assert_close(found, wanted)
    assert trainer.train()
    best = torch.load(config.run_directory / "best.pt", weights_only=True)["model"]
    assert best["encoder.0.feed_forward.inner.weight"].shape == (40, 16)


@pytest.mark.parametrize("kind", ["run", "bundle"])
def test_a_wider_one_is_refused(starts: dict[str, Path], kind: str, tmp_path: Path) -> None:
    config = transformer_config(tmp_path, 16, starts[kind])
    with pytest.raises(CheckpointError, match=r"is of another model \(feed_forward: 24 there, 16 here\)"):
        new_trainer(config)
