"""The measured alignment: of made-up weights the map, head and step that look where the task says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from service.bundle.manifest import AlignmentEntry, AttentionMapEntry, Capabilities
from service.bundle.tokenizer import Token
from training.alignment import copied_hits, measure_alignment
from training.config import FileCorpus, load_config
from training.corpus import Corpus, prepare
from training.models.interface import (
    AutoregressiveModel,
    Context,
    Decoded,
    Encoded,
    Step,
    Tensors,
    cross_map,
)
from training.tasks import TASKS, Example

REVERSE = Path(__file__).parents[2] / "training" / "configs" / "reverse.yaml"


class Staged(AutoregressiveModel):
    """Two cross maps of two heads that look at even weights everywhere, but for one head of one map: it looks at the
    mirrored source token of the target token at hand, or, read late, of the one that was written last."""

    def __init__(self, right: tuple[str, int], late: bool, maps: int = 2, heads: int = 2) -> None:
        super().__init__(10, 10)
        self.right, self.late, self.maps, self.heads = right, late, maps, heads
        self.parameter = nn.Parameter(torch.zeros(1))

    @property
    def capabilities(self) -> Capabilities:
        raise NotImplementedError

    @property
    def attention_maps(self) -> tuple[AttentionMapEntry, ...]:
        whole = cross_map(self.heads, "staged")
        return tuple(
            whole.model_copy(update={"name": f"cross-{layer}", "tensor": f"attention_cross-{layer}", "layer": layer})
            for layer in range(self.maps)
        )

    @property
    def alignment(self) -> AlignmentEntry | None:
        return AlignmentEntry(map="cross-0", heads=(0,), shift=0, chosen_by="the model's own")

    def forward(
        self, source_ids: Tensor, source_lengths: Tensor, target_inputs: Tensor, context: Context | None = None
    ) -> Decoded:
        assert context is None
        (source,), target = source_lengths.tolist(), target_inputs.shape[1]
        mirrored = torch.full((1, self.heads, target, source), 1.0 / source)
        head = self.right[1]
        for row in range(target):
            written = row - 1 if self.late else row  # numbers of the target stand where those of the source end
            place = source - 2 - written
            if 0 <= place < source:
                mirrored[0, head, row] = torch.eye(source)[place]
        even = torch.full((1, self.heads, target, source), 1.0 / source)
        maps = {entry.name: mirrored if entry.name == self.right[0] else even for entry in self.attention_maps}
        return Decoded(torch.zeros(1, target, 10), maps)

    def encode(self, source_ids: Tensor, source_lengths: Tensor, context: Context | None = None) -> Encoded:
        raise NotImplementedError

    def decode_step(
        self, token_ids: Tensor, positions: Tensor, source_lengths: Tensor, memory: Tensors, state: Tensors
    ) -> Step:
        raise NotImplementedError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    config = load_config(REVERSE)
    settings = config.corpus.model_copy(update={"training_pairs": 200, "validation_pairs": 40, "test_pairs": 1})
    directory = tmp_path_factory.mktemp("run")
    return prepare(config.model_copy(update={"run_directory": directory, "corpus": settings}), lambda _: None)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("right", [("cross-0", 1), ("cross-1", 0)])
def test_the_head_that_looks_right_is_found(corpus: Corpus, right: tuple[str, int], late: bool) -> None:
    found = measure_alignment(Staged(right, late), corpus, TASKS["reverse"])
    assert found is not None
    assert found.map == right[0]
    assert found.shift == int(late)
    # The mean of this head and an even one has its greatest weight at the same place, and means come first.
    assert found.heads == (0, 1)
    assert "100.0%" in found.chosen_by


def test_a_head_alone_is_chosen_where_its_fellow_misleads(corpus: Corpus) -> None:
    class Misled(Staged):
        def forward(
            self, source_ids: Tensor, source_lengths: Tensor, target_inputs: Tensor, context: Context | None = None
        ) -> Decoded:
            decoded = super().forward(source_ids, source_lengths, target_inputs, context)
            decoded.attention["cross-1"][0, 1, :, :-1] = 0.0
            decoded.attention["cross-1"][0, 1, :, -1] = 2.0  # all on `</s>`
            return decoded

    found = measure_alignment(Misled(("cross-1", 0), False), corpus, TASKS["reverse"])
    assert found is not None
    assert (found.map, found.heads, found.shift) == ("cross-1", (0,), 0)


def test_where_there_is_one_map_of_one_head_it_is_the_models_own(corpus: Corpus) -> None:
    model = Staged(("cross-0", 0), False, maps=1, heads=1)
    assert measure_alignment(model, corpus, TASKS["reverse"]) == model.alignment


def tokens_of(text: str, *cut: str) -> list[Token]:
    """Tokens of these characters, in order, and `</s>`."""
    found, end = [], 0
    for piece in cut:
        begin = text.index(piece, end)
        end = begin + len(piece)
        found.append(Token(9, piece, begin, end))
    return [*found, Token(2, "</s>", end, end, special=True)]


def test_words_that_both_sides_have_once_say_where_to_look() -> None:
    example = Example("Tom wohnt in Boston, 12 in Berlin.", "Tom lives in Boston, 12 in Berlin.", "")
    target = tokens_of(example.target, "T", "om", "lives", "in", "Bos", "ton", ",", "12", "in", "Berlin", ".")
    places = {word: (example.source.index(word), example.source.index(word) + len(word)) for word in ("Tom", "Boston")}
    boston, tom, nowhere = places["Boston"], places["Tom"], (0, 0)
    looked_at = [tom, boston, tom, tom, (boston[0] + 3, boston[1]), nowhere, boston, tom, tom, boston, tom]
    # "in" stands twice; "lives" and "wohnt" are not the same: T, om, Bos, ton, 12 and Berlin are judged.
    assert sorted(copied_hits(example, target, looked_at)) == [False] * 4 + [True] * 2


def test_of_text_the_head_that_looks_at_the_words_of_both_sides_is_chosen(tmp_path: Path) -> None:
    """A file whose targets are their sources backwards, so that every word is on both sides."""
    lines = [f"{a} {b} {c}\t{c} {b} {a}\n" for a in range(10, 20) for b in range(20, 24) for c in range(30, 33)]
    (tmp_path / "pairs.tsv").write_text("".join(lines), encoding="utf-8")
    config = load_config(REVERSE).model_copy(update={"run_directory": tmp_path / "run"})
    files = FileCorpus.model_validate(
        {"kind": "files", "training": [{"tsv": tmp_path / "pairs.tsv"}], "held_out": {"validation": 20, "test": 20}}
    )
    corpus = prepare(config.model_copy(update={"corpus": files}), lambda _: None)
    for late in (False, True):
        found = measure_alignment(Staged(("cross-1", 1), late), corpus, None)
        assert found is not None
        assert (found.map, found.heads, found.shift) == ("cross-1", (0, 1), int(late))  # the mean, which is as good
        assert found.chosen_by == "agreement with words that both sides have, 100.0% of 60 validation tokens"
