"""Every mechanism of attention in the engine: what it emits, and every weight, are PyTorch's own forced decoding.

A tiny model of each kind is exported, and a dozen ragged sentences are translated in one running batch, which they join
and leave. PyTorch then reads each of them alone, without padding, all of its target at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pytest
import torch

from service.bundle.manifest import AttentionMapEntry, AttentionVariant, Role
from service.bundle.repository import Bundle, load_bundle
from service.bundle.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from service.engine.engine import Engine, EngineSettings
from service.engine.hypothesis import Floats, Hypothesis
from service.engine.observer import SilentObserver
from service.engine.onnx_model import Array, OnnxModel
from service.engine.search import NEVER_CHOSEN
from service.engine.sentence import SentenceRequest
from tests.make_bundles import make, tiny_model
from training import graphs
from training.config import AttentionName, ModelConfig, RecurrentConfig, TransformerConfig
from training.models.interface import AutoregressiveModel, Context, Scored

PIECES = 24  # the words below and the special pieces
WORDS = " ".join(map(str, range(PIECES - UNK_ID - 1)))
SENTENCES, ROWS, CONTEXT_SENTENCES, LONGEST_TARGET = 12, 3, 3, 24
TOLERANCE = 1e-4


def recurrent(**options: Any) -> RecurrentConfig:
    """With states of the annotations' size, which some scores and the additive decoder want."""
    sizes = {"embedding_size": 8, "encoder_size": 6, "decoder_size": 20, "attention_size": 8, "max_positions": 64}
    return RecurrentConfig(**(sizes | options))


def transformer(**options: Any) -> TransformerConfig:
    sizes = {"size": 16, "heads": 2, "feed_forward": 24, "encoder_layers": 1, "decoder_layers": 1}
    return TransformerConfig(**(sizes | {"max_positions": LONGEST_TARGET, "dropout": 0.0} | options))


@dataclass(frozen=True)
class Mechanism:
    """A model to make: its first weights are those of ``seed`` times ``scale``, which make it lively, with no two
    tokens that come close, and not so large that rounding grows to more than the tolerance."""

    config: ModelConfig
    seed: int = 1
    scale: float = 3.0


#: By a bundle's name.
MECHANISMS = {
    "additive": Mechanism(recurrent(attention="additive"), seed=2),
    "concat": Mechanism(recurrent(attention="concat"), seed=2),
    "dot": Mechanism(recurrent(attention="dot"), seed=2, scale=2.0),
    "scaled-dot": Mechanism(recurrent(attention="scaled_dot")),
    "general": Mechanism(recurrent(attention="general"), seed=4, scale=2.0),
    "location": Mechanism(recurrent(attention="location"), seed=3),
    "cosine": Mechanism(recurrent(attention="cosine"), seed=2),
    "kernel": Mechanism(recurrent(attention="kernel")),
    "hard": Mechanism(recurrent(attention="hard", score="general")),
    "local-m": Mechanism(recurrent(attention="local_m", score="general")),
    "local-p": Mechanism(recurrent(attention="local_p", score="general"), scale=2.0),
    "attention-over-attention": Mechanism(recurrent(attention="attention_over_attention", score="general"), scale=2.0),
    "multi-head": Mechanism(recurrent(attention="multi_head"), seed=2, scale=2.0),
    "average": Mechanism(recurrent(attention="average")),
    "max": Mechanism(recurrent(attention="max"), seed=3),
    "input-feeding": Mechanism(recurrent(input_feeding=True)),
    "additive-decoder": Mechanism(recurrent(decoder="additive")),
    "gru-to-lstm": Mechanism(recurrent(encoder="gru", bidirectional=False, encoder_layers=2, decoder="lstm"), seed=2),
    "hierarchical": Mechanism(recurrent(context_sentences=CONTEXT_SENTENCES), seed=4),
    "pre-norm-rotary": Mechanism(transformer(norm="pre", positions="rotary"), seed=2, scale=2.0),
    "post-norm-sinusoidal": Mechanism(transformer(norm="post", positions="sinusoidal"), seed=3, scale=1.6),
}


class Joins(SilentObserver):
    """Counts how often sentences joined the batch."""

    count = 0

    def encoded(self, rows: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        self.count += 1


@dataclass(frozen=True)
class Case:
    """A mechanism's model and its bundle, what was asked, what the engine gave, and what PyTorch says of that."""

    model: AutoregressiveModel
    bundle: Bundle
    graphs: OnnxModel
    requests: list[SentenceRequest]
    found: list[Hypothesis]
    logits: list[torch.Tensor]  # (target_length, vocabulary) each
    scored: list[Scored]
    joins: int


def random_sentence(generator: random.Random, longest: int) -> tuple[int, ...]:
    return (*(generator.randrange(UNK_ID, PIECES) for _ in range(generator.randint(1, longest))), EOS_ID)


def random_requests(sentences_before: int) -> list[SentenceRequest]:
    """Ragged in source, context and target. The first two have no sentence before them, the third as many as can be."""
    generator = random.Random(8)
    counts = [0, 0, sentences_before, *(generator.randint(0, sentences_before) for _ in range(SENTENCES - 3))]
    return [
        SentenceRequest(
            random_sentence(generator, 30),
            generator.randint(3, LONGEST_TARGET),
            attention="full",
            context_ids=tuple(random_sentence(generator, 9) for _ in range(count)),
        )
        for count in counts
    ]


def context_of(request: SentenceRequest, sentences: int) -> Context | None:
    if not sentences:
        return None
    rows = [*request.context_ids, *[()] * (sentences - len(request.context_ids))]
    ids = torch.full((1, sentences, max(1, *map(len, rows))), PAD_ID)
    for place, row in enumerate(rows):
        ids[0, place, : len(row)] = torch.tensor(row)
    return Context(ids, torch.tensor([[len(row) for row in rows]], dtype=torch.int32))


def forced(
    model: AutoregressiveModel, request: SentenceRequest, target: tuple[int, ...]
) -> tuple[torch.Tensor, Scored]:
    """Logits and score of one target, of the sentence alone: neither a step nor a batch that the engine shares."""
    source, lengths = torch.tensor([request.source_ids]), torch.tensor([len(request.source_ids)], dtype=torch.int32)
    context = context_of(request, model.context_sentences)
    with torch.no_grad():
        decoded = model(source, lengths, torch.tensor([[BOS_ID, *target[:-1]]]), context)
        return decoded.logits[0], model.score(source, lengths, torch.tensor([target]), context)


@pytest.fixture(scope="module", params=MECHANISMS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name: str = request.param
    mechanism = MECHANISMS[name]
    every_variant = graphs._Writer.variants

    def widest_variant(writer: graphs._Writer, role: Role) -> dict[AttentionVariant, list[str]]:
        """The graph of every map serves every wish, and it is the exports that take the time."""
        return dict([list(every_variant(writer, role).items())[-1]])

    golden: list[str | list[str]] = ["1 2 3", ["4 5", "6"] if name == "hierarchical" else "6"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs._Writer, "variants", widest_variant)
        root = tmp_path_factory.mktemp("mechanisms")
        made = (mechanism.seed, mechanism.config, mechanism.scale)
        bundle = load_bundle(make(root, name, 1, "word", WORDS, golden, *made))
    model = tiny_model(PIECES, PIECES, *made)
    assert isinstance(model, AutoregressiveModel)
    onnx_model, joins = OnnxModel(bundle, "cpu"), Joins()
    requests = random_requests(model.context_sentences)
    engine = Engine(onnx_model, EngineSettings(workers=1, rows_per_worker=ROWS), joins)
    try:
        found = [result.hypotheses[0] for result in engine.translate(requests)]
    finally:
        engine.stop()
    by_pytorch = [forced(model, asked, best.target_ids) for asked, best in zip(requests, found, strict=True)]
    logits, scored = [logits for logits, _ in by_pytorch], [scored for _, scored in by_pytorch]
    return Case(model, bundle, onnx_model, requests, found, logits, scored, joins.count)


def test_no_attention_is_left_out() -> None:
    configs = [mechanism.config for mechanism in MECHANISMS.values()]
    used = {config.attention for config in configs if isinstance(config, RecurrentConfig)}
    assert used == {*get_args(AttentionName)} - {"none"}


def test_sentences_join_and_leave_a_running_batch_and_say_different_things(case: Case) -> None:
    """Else the tests below would hold for an engine that confuses its rows."""
    assert case.joins > SENTENCES / ROWS
    assert len({best.target_ids for best in case.found}) > SENTENCES / 2
    assert len({token for best in case.found for token in best.target_ids}) > 5


def test_tokens_and_their_probabilities_are_pytorchs(case: Case) -> None:
    for asked, best, logits, scored in zip(case.requests, case.found, case.logits, case.scored, strict=True):
        assert len(best.target_ids) == asked.max_target_tokens or best.target_ids[-1] == EOS_ID
        chosen = logits.clone()
        chosen[:, NEVER_CHOSEN] = -torch.inf
        assert list(best.target_ids) == chosen.argmax(-1).tolist()
        wanted = scored.log_probabilities[0].numpy()
        np.testing.assert_allclose(best.log_probabilities, wanted, rtol=0, atol=TOLERANCE)


def in_the_engines_form(weights: torch.Tensor, kind: str, request: SentenceRequest) -> Floats:
    """PyTorch's map of one sentence, (1, heads, target, …), as ``Hypothesis`` has it: without what is not there."""
    by_token: Floats = weights[0].transpose(0, 1).numpy()
    counts = [len(ids) for ids in request.context_ids]
    if kind == "context_sentence":
        return by_token[..., : len(counts)]
    if kind == "context":
        rows = [by_token[:, :, place, :count] for place, count in enumerate(counts)]
        return np.concatenate([by_token[:, :, 0, :0], *rows], axis=-1)
    return by_token


def test_every_weight_is_pytorchs_and_none_is_of_padding(case: Case) -> None:
    maps = case.bundle.manifest.attention_maps
    for asked, best, scored in zip(case.requests, case.found, case.scored, strict=True):
        assert best.attention.keys() == scored.attention.keys() == {entry.name for entry in maps}
        target, source = len(best.target_ids), len(asked.source_ids)
        columns = {
            "cross": source,
            "encoder_self": source,
            "decoder_self": target,
            "context": sum(map(len, asked.context_ids)),
            "context_sentence": len(asked.context_ids),
        }
        for entry in maps:
            found = best.attention[entry.name]
            wanted = in_the_engines_form(scored.attention[entry.name], entry.kind, asked)
            rows = source if entry.kind == "encoder_self" else target
            assert found.shape == wanted.shape == (rows, entry.heads, columns[entry.kind])
            np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE)


def sums(entry: AttentionMapEntry, asked: SentenceRequest, best: Hypothesis) -> Floats | None:
    """Of every row of a map; None where it is of a context that is not there."""
    if entry.kind in ("context", "context_sentence") and not asked.context_ids:
        return None
    found: Floats = best.attention[entry.name].sum(-1)
    return found


def test_rows_sum_to_one_where_the_manifest_says_so(case: Case) -> None:
    for entry in case.bundle.manifest.attention_maps:
        for asked, best in zip(case.requests, case.found, strict=True):
            found = sums(entry, asked, best)
            if found is None:
                assert best.attention[entry.name].size == 0
            elif entry.rows_sum_to_one:
                np.testing.assert_allclose(found, 1.0, rtol=0, atol=1e-5)
            else:
                assert case.bundle.manifest.name == "local-p"
                assert np.all((found > 0.0) & (found < 1.0))


def test_what_lies_behind_a_sentence_has_the_weight_0(case: Case) -> None:
    """In the graphs themselves, whatever is there: the engine only cuts it off."""
    generator = np.random.default_rng(5)
    lengths, before = np.array([5, 1, 3], np.int32), np.array([[4, 0, 2], [0, 0, 0], [6, 1, 3]], np.int32)
    feeds: dict[str, Array] = {"source_ids": generator.integers(UNK_ID, PIECES, (3, 7)), "source_lengths": lengths}
    if case.graphs.context_sentences:
        feeds |= {"context_ids": generator.integers(UNK_ID, PIECES, (3, 3, 8)), "context_lengths": before}
    encoded = case.graphs.encode(feeds, "full")
    maps = {name: [weights] for name, weights in encoded.attention.items()}
    state = encoded.state
    for place in range(4):
        of_step = {
            "token_ids": generator.integers(UNK_ID, PIECES, (3, 1)),
            "positions": np.full(3, place),
            "source_lengths": lengths,
        }
        step = case.graphs.decode_step(of_step | encoded.memory | state, "full")
        state = step.state
        for name, weights in step.attention.items():
            maps.setdefault(name, []).append(weights)
    assert maps.keys() == case.graphs.attention_maps
    for name, steps in maps.items():
        kind = case.graphs.map_kinds[name]
        for place, weights in enumerate(steps):
            for row, length in enumerate(lengths):
                seen = weights[row, :, :length] if kind == "encoder_self" else weights[row]
                there = np.zeros(seen.shape[1:], dtype=bool)
                if kind == "context":
                    there[...] = np.arange(seen.shape[-1]) < before[row][:, None]
                elif kind == "context_sentence":
                    there[...] = before[row] > 0
                else:
                    there[..., : place + 1 if kind == "decoder_self" else length] = True
                assert np.all(seen[:, ~there] == 0.0)
                assert np.any(seen[:, there] > 0.0) == there.any()
