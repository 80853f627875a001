"""The proof that exported graphs compute what PyTorch computes: logits, states and attention, at ragged shapes.

Called before a bundle is written and by the tests.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from service.bundle.manifest import GraphEntry
from service.bundle.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from service.engine.runtime import onnxruntime
from service.engine.search import NEVER_CHOSEN
from training.errors import ParityError
from training.models.interface import AutoregressiveModel, Context, Encoded, OneShotModel, Tensors, TranslationModel

#: Source lengths of each batch tried: alone, even, ragged, and longer than any example the exporter saw.
SHAPES: tuple[tuple[int, ...], ...] = ((1,), (7,), (5, 5), (9, 4, 1), (40, 33, 2, 17, 8))
HYPOTHESES = (1, 3)
STEPS = 4
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-4, 1e-5
MOST_ROUNDING = 1e-3

Arrays = dict[str, npt.NDArray[np.float32]]
Sessions = dict[str, onnxruntime.InferenceSession]


def prove_parity(model: TranslationModel, directory: Path, graphs: Sequence[GraphEntry]) -> float:
    """Compare every graph with PyTorch at every shape; returns the greatest absolute difference seen.

    Raises ParityError, naming graph, tensor and shape, beyond rtol 1e-4 and atol 1e-5, and what float32 itself costs:
    where PyTorch in float32 is off from PyTorch in float64 by e, as in a model of large unscaled scores, the graph may
    be off by 2e more (by 1e-3 at most).
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    sessions = {
        graph.file: onnxruntime.InferenceSession(
            str(directory / graph.file), options, providers=["CPUExecutionProvider"]
        )
        for graph in graphs
    }
    with torch.no_grad():
        if isinstance(model, OneShotModel):
            return _compare_one_shot(model, sessions, graphs)
        if isinstance(model, AutoregressiveModel):
            return _compare_autoregressive(model, sessions, graphs)
    raise TypeError(f"{type(model).__name__} is of no kind that has graphs")


def _compare_one_shot(model: OneShotModel, sessions: Sessions, graphs: Sequence[GraphEntry]) -> float:
    generator = torch.Generator().manual_seed(7)
    worst = 0.0
    for lengths in SHAPES:
        source_ids = torch.full((len(lengths), model.length), PAD_ID)
        for row, length in zip(source_ids, lengths, strict=True):
            content = min(length, model.length) - 1
            row[:content] = torch.randint(UNK_ID, model.source_vocabulary, (content,), generator=generator)
            row[content] = EOS_ID
        decoded = model.translate(source_ids)
        for graph in graphs:
            wanted = {"logits": decoded.logits.numpy()} | _emitted(graph, decoded.attention)
            got = _run(sessions[graph.file], {"source_ids": source_ids})
            worst = max(worst, _compare(wanted, got, graph.file, f"lengths {lengths}"))
    return worst


def _compare_autoregressive(model: AutoregressiveModel, sessions: Sessions, graphs: Sequence[GraphEntry]) -> float:
    encoders = [graph for graph in graphs if graph.role == "encode"]
    steppers = [graph for graph in graphs if graph.role == "decode_step"]
    generator = torch.Generator().manual_seed(7)
    precise = copy.deepcopy(model).double()
    worst = 0.0
    for lengths in SHAPES:
        source_lengths = torch.tensor(lengths, dtype=torch.int32)
        source_ids = torch.randint(4, model.source_vocabulary, (len(lengths), max(lengths)), generator=generator)
        context = _random_context(model, len(lengths), generator)
        encoded = model.encode(source_ids, source_lengths, context)
        exact = precise.encode(source_ids, source_lengths, context)
        fed: dict[str, object] = {"source_ids": source_ids, "source_lengths": source_lengths}
        if context is not None:
            fed |= {"context_ids": context.ids, "context_lengths": context.lengths}
        for graph in encoders:
            wanted, sure = (
                _named("memory_", of.memory) | _named("state_", of.state) | _emitted(graph, of.attention)
                for of in (encoded, exact)
            )
            got = _run(sessions[graph.file], fed)
            worst = max(worst, _compare(wanted, got, graph.file, f"lengths {lengths}", sure))
        for hypotheses in HYPOTHESES:
            for graph in steppers:
                where = f"lengths {lengths}, {hypotheses} hypotheses"
                sides = ((model, encoded), (precise, exact))
                difference = _compare_steps(sides, sessions[graph.file], graph, source_lengths, hypotheses, where)
                worst = max(worst, difference)
    return worst


def _random_context(model: AutoregressiveModel, batch: int, generator: torch.Generator) -> Context | None:
    """Of a model of documents: sentences of 0 (absent) to 19 tokens."""
    if not model.context_sentences:
        return None
    lengths = torch.randint(0, 20, (batch, model.context_sentences), generator=generator, dtype=torch.int32)
    shape = (*lengths.shape, max(1, int(lengths.max())))
    return Context(torch.randint(4, model.source_vocabulary, shape, generator=generator), lengths)


def _compare_steps(
    sides: Sequence[tuple[AutoregressiveModel, Encoded]],
    session: onnxruntime.InferenceSession,
    graph: GraphEntry,
    source_lengths: Tensor,
    hypotheses: int,
    where: str,
) -> float:
    """Step the graph and PyTorch, in float32 and in float64, side by side, each on its own states, so that differences
    may add up as they would in use."""
    generator = torch.Generator().manual_seed(hypotheses)
    states = [
        {name: tensor.repeat_interleave(hypotheses, 0) for name, tensor in encoded.state.items()}
        for _, encoded in sides
    ]
    own = dict(_named("state_", states[0]))
    memory = sides[0][1].memory
    worst = 0.0
    for position in range(STEPS):
        vocabulary = sides[0][0].target_vocabulary
        tokens = torch.randint(4, vocabulary, (len(source_lengths), hypotheses), generator=generator)
        positions = torch.full((len(source_lengths),), position)
        steps = [
            model.decode_step(tokens, positions, source_lengths, encoded.memory, state)
            for (model, encoded), state in zip(sides, states, strict=True)
        ]
        states = [step.state for step in steps]
        wanted, sure = (
            {"logits": step.logits.numpy()} | _named("next_state_", step.state) | _emitted(graph, step.attention)
            for step in steps
        )
        feeds: dict[str, object] = {"token_ids": tokens, "positions": positions, "source_lengths": source_lengths}
        got = _run(session, feeds | _named("memory_", memory) | own)
        worst = max(worst, _compare(wanted, got, graph.file, f"{where}, step {position}", sure))
        own = {name.removeprefix("next_"): got[name] for name in got if name.startswith("next_")}
    return worst


def _named(prefix: str, tensors: Tensors) -> Arrays:
    return {f"{prefix}{name}": tensor.numpy() for name, tensor in tensors.items()}


def _emitted(graph: GraphEntry, attention: Tensors) -> Arrays:
    """The maps that a graph says it emits."""
    outputs = {spec.name for spec in graph.outputs}
    return {name: array for name, array in _named("attention_", attention).items() if name in outputs}


def _run(session: onnxruntime.InferenceSession, feeds: dict[str, object]) -> Arrays:
    taken = {value.name for value in session.get_inputs()}
    arrays = {name: value.numpy() if isinstance(value, Tensor) else value for name, value in feeds.items()}
    outputs = session.run(None, {name: array for name, array in arrays.items() if name in taken})
    return dict(zip((value.name for value in session.get_outputs()), outputs, strict=True))


def _compare(wanted: Arrays, got: Arrays, graph: str, where: str, sure: Arrays | None = None) -> float:
    """``sure`` is ``wanted`` in float64."""
    worst = 0.0
    for name, expected in wanted.items():
        found = got.get(name)
        if found is None or found.shape != expected.shape:
            shape = None if found is None else found.shape
            raise ParityError(f"{graph}: {name} at {where} has the shape {shape}, PyTorch's is {expected.shape}")
        difference = float(np.abs(found - expected).max(initial=0.0))
        rounding = 0.0 if sure is None else float(np.abs(expected - sure[name]).max(initial=0.0))
        allowed = ABSOLUTE_TOLERANCE + min(2.0 * rounding, MOST_ROUNDING)
        if not np.allclose(found, expected, rtol=RELATIVE_TOLERANCE, atol=allowed):
            raise ParityError(f"{graph}: {name} at {where} differs from PyTorch by {difference:.2e}")
        worst = max(worst, difference)
    return worst


def translate(
    model: TranslationModel, source_ids: list[int], max_target_tokens: int, context: Sequence[list[int]] = ()
) -> list[int]:
    """PyTorch's own translation of one sentence: greedy search, or the one pass; ``context`` came before it."""
    if isinstance(model, OneShotModel):
        return one_pass(model, source_ids)
    if isinstance(model, AutoregressiveModel):
        return greedy(model, source_ids, max_target_tokens, context)
    raise TypeError(f"{type(model).__name__} is of no kind that translates")


def one_pass(model: OneShotModel, source_ids: list[int]) -> list[int]:
    """The likeliest token of each of the model's places, padding and `</s>` too."""
    padded = torch.full((1, model.length), PAD_ID)
    padded[0, : len(source_ids)] = torch.tensor(source_ids)
    with torch.no_grad():
        tokens: list[int] = model.translate(padded).logits[0].argmax(-1).tolist()
    return tokens


def greedy(
    model: AutoregressiveModel, source_ids: list[int], max_target_tokens: int, context: Sequence[list[int]] = ()
) -> list[int]:
    """PyTorch's own greedy translation of one sentence, `</s>` last unless the limit came first."""
    with torch.no_grad():
        lengths = torch.tensor([len(source_ids)], dtype=torch.int32)
        before = Context.of_one(context, model.context_sentences) if model.context_sentences else None
        memory, state, _ = model.encode(torch.tensor([source_ids]), lengths, before)
        target: list[int] = []
        while len(target) < max_target_tokens and target[-1:] != [EOS_ID]:
            last = torch.tensor([[target[-1] if target else BOS_ID]])
            step = model.decode_step(last, torch.tensor([len(target)]), lengths, memory, state)
            state = step.state
            logits = step.logits[0]
            logits[NEVER_CHOSEN] = -torch.inf
            target.append(int(logits.argmax()))
    return target
