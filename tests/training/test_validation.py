"""What a validation says, against a loop over sentences; batches of translations, against one at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from torch import Tensor

from service.bundle.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from tests.training.conftest import tiny_config
from training.batches import make_batch
from training.config import ModelConfig, RecurrentConfig, SandGlassConfig
from training.corpus import ContextArrays, Corpus, ParallelArrays, TokenArrays
from training.models import build
from training.models.interface import AutoregressiveModel, Decoded
from training.models.recurrent import RecurrentModel
from training.models.sandglass import TIME, SandGlass
from training.models.transformer import Transformer
from training.parity import greedy, one_pass, translate
from training.selection import Validation
from training.trainer import build_model
from training.validation import Sample, score, translate_batch, translate_validation, validate

PIECES = 30
SANDGLASS_PIECES = 62


def token_arrays(sentences: list[list[int]]) -> TokenArrays:
    offsets = np.cumsum([0, *(len(sentence) for sentence in sentences)], dtype=np.int64)
    return TokenArrays(np.array([i for sentence in sentences for i in sentence], dtype=np.int32), offsets)


def pairs(sources: list[list[int]], targets: list[list[int]] | None = None) -> ParallelArrays:
    return ParallelArrays(token_arrays(sources), token_arrays(targets or [[EOS_ID]] * len(sources)))


def random_sources(count: int, longest: int, seed: int = 3, pieces: int = PIECES) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest + 1, count)
    return [[*generator.integers(4, pieces, length - 1).tolist(), EOS_ID] for length in lengths]


def lively_model(seed: int) -> RecurrentModel:
    torch.manual_seed(seed)
    sizes = {"embedding_size": 6, "encoder_size": 6, "decoder_size": 8, "attention_size": 6}
    model = RecurrentModel(RecurrentConfig(**sizes), PIECES, PIECES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
        model.output.bias[[PAD_ID, BOS_ID, UNK_ID]] = -1e3  # no target has one of these
    return model


# --- teacher-forced --------------------------------------------------------------------------------------------------


def partly_right(model: RecurrentModel, count: int) -> tuple[list[list[int]], list[list[int]]]:
    """Sources, and targets of which the first half is what greedy search gives and the rest differs in one token."""
    generator = np.random.default_rng(3)
    sources = [[*generator.integers(4, PIECES, generator.integers(1, 8)).tolist(), EOS_ID] for _ in range(count)]
    targets = [greedy(model, source, int(generator.integers(1, 8))) for source in sources]
    for target in targets[count // 2 :]:
        place = generator.integers(len(target))
        target[place] = 4 + (target[place] - 3) % (PIECES - 4)
    return sources, targets


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_exact_match_is_what_greedy_search_gives(seed: int) -> None:
    model = lively_model(seed).eval()
    sources, targets = partly_right(model, 40)
    assert len(set(map(tuple, targets[:20]))) > 10, "the model says the same to everything"
    right = sum(greedy(model, source, len(target)) == target for source, target in zip(sources, targets, strict=True))
    assert right == 20
    assert validate(model, pairs(sources, targets), batch_tokens=60).exact_match == right / 40


def test_the_measures_are_those_of_one_sentence_at_a_time_whatever_the_batches() -> None:
    """Loss and accuracy are means over target tokens, exact match over sentences."""
    model = lively_model(4)
    sources, targets = partly_right(model, 30)
    total, right, exact = 0.0, 0, 0
    with torch.no_grad():
        for source, target in zip(sources, targets, strict=True):
            inputs = torch.tensor([[BOS_ID, *target[:-1]]])
            decoded = model.eval()(torch.tensor([source]), torch.tensor([len(source)]), inputs)
            total -= float(torch.log_softmax(decoded.logits[0], -1)[range(len(target)), target].sum())
            said = decoded.logits[0].argmax(-1).tolist()
            right += sum(one == other for one, other in zip(said, target, strict=True))
            exact += said == target
    tokens = sum(map(len, targets))
    assert 0 < exact < 30
    assert exact / 30 < right / tokens < 1
    for batch_tokens in (1, 60, 100_000):
        found = validate(model, pairs(sources, targets), batch_tokens)
        assert found.loss == pytest.approx(total / tokens, rel=1e-5)
        assert found.accuracy == right / tokens
        assert found.exact_match == exact / 30
        assert (found.bleu, found.chrf) == (None, None)


def test_the_loss_is_that_of_scoring() -> None:
    model = lively_model(4).eval()
    sources, targets = partly_right(model, 20)
    total = 0.0
    with torch.no_grad():
        for source, target in zip(sources, targets, strict=True):
            scored = model.score(torch.tensor([source]), torch.tensor([len(source)]), torch.tensor([target]))
            total -= float(scored.log_probabilities.sum())
    found = validate(model, pairs(sources, targets), 60)
    assert found.loss == pytest.approx(total / sum(map(len, targets)), rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_validation_uses_no_dropout_and_no_random_numbers(training: bool) -> None:
    """And leaves the model as it found it."""
    model = lively_model(5)
    model.dropout.p = 0.5
    corpus = ParallelArrays(token_arrays([[5, 6, EOS_ID]] * 9), token_arrays([[BOS_ID + 4, EOS_ID]] * 9))
    before = torch.get_rng_state()
    first = validate(model.train(training), corpus, 100)
    assert model.training == training
    assert validate(model.train(), corpus, 100) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


# --- SandGlass -------------------------------------------------------------------------------------------------------


def numbers_and_back() -> ParallelArrays:
    """Up to 22 tokens and their reverse, as the model's own task has them."""
    sources = random_sources(20, 23, pieces=SANDGLASS_PIECES)
    return pairs(sources, [[*source[-2::-1], EOS_ID] for source in sources])


def sandglass(**options: Any) -> SandGlass:
    torch.manual_seed(6)
    return SandGlass(SandGlassConfig(**options), SANDGLASS_PIECES, SANDGLASS_PIECES).eval()


def test_the_loss_of_a_sandglass_is_the_mean_over_all_its_places() -> None:
    """Padding and end too, 24 of each sentence, whatever its length and its batch."""
    model, corpus = sandglass(batch_norm=False), numbers_and_back()
    total, exact, right = 0.0, 0, 0
    for i in range(len(corpus)):
        source, target = corpus.source[i].tolist(), corpus.target[i].tolist()
        padding = [PAD_ID] * (TIME - len(source))
        wanted = [*padding, EOS_ID, *target[:-1]]
        assert wanted == [*source, *padding][::-1]
        with torch.no_grad():
            logits = model.translate(torch.tensor([[*source, *padding]])).logits[0]
        total -= float(torch.log_softmax(logits, -1)[range(TIME), wanted].sum())
        said = one_pass(model, source)
        exact += said == wanted
        right += sum(one == other for one, other in zip(said, wanted, strict=True))
    for batch_tokens in (1, 100, 100_000):
        found = validate(model, corpus, batch_tokens)
        assert found.loss == pytest.approx(total / (len(corpus) * TIME), rel=1e-5)
        assert found.exact_match == exact / len(corpus)
        assert found.accuracy == right / (len(corpus) * TIME)


class Told(SandGlass):
    """Says what it reads, backwards, but for one place."""

    wrong_place: int | None = None

    def translate(self, source_ids: Tensor) -> Decoded:
        tokens = source_ids.flip(1)
        if self.wrong_place is not None:
            tokens[:, self.wrong_place] = EOS_ID + 2 + (tokens[:, self.wrong_place] == EOS_ID + 2)
        return Decoded(torch.nn.functional.one_hot(tokens, SANDGLASS_PIECES).float(), {})


def test_a_sandglass_is_right_when_every_place_is() -> None:
    """Right where padding, end and numbers all are."""
    told = Told(SandGlassConfig(), SANDGLASS_PIECES, SANDGLASS_PIECES)
    found = validate(told, numbers_and_back(), 500)
    assert (found.exact_match, found.accuracy) == (1.0, 1.0)
    for place in (0, TIME - 1):
        told.wrong_place = place
        found = validate(told, numbers_and_back(), 500)
        assert found.exact_match == 0.0
        assert found.accuracy == pytest.approx(1 - 1 / TIME)


def told_tokens(ids: list[int]) -> list[int]:
    return [token for token in ids if token not in (PAD_ID, EOS_ID)]


@pytest.mark.parametrize("numbers", [0, 1, 21, 22, 23])
def test_a_sandglass_says_all_that_it_says_but_padding_and_end(numbers: int) -> None:
    """With 23 numbers no place is left for padding."""
    source = [*range(5, 5 + numbers), EOS_ID]
    told = Told(SandGlassConfig(), SANDGLASS_PIECES, SANDGLASS_PIECES)
    found = translate_batch(told, make_batch(pairs([source]), np.array([0])))
    assert found == [source[-2::-1]] == [told_tokens(one_pass(told, source))]


def test_a_batch_of_one_pass_is_each_of_its_sentences() -> None:
    model, corpus = sandglass(), numbers_and_back()
    found = translate_batch(model, make_batch(corpus, np.arange(20)))
    assert found == [told_tokens(translate(model, corpus.source[i].tolist(), TIME)) for i in range(20)]


# --- translations ----------------------------------------------------------------------------------------------------

SMALL = {"family": "recurrent", "embedding_size": 6, "encoder_size": 6, "decoder_size": 8, "attention_size": 6}
TRANSFORMER = {"family": "transformer", "size": 8, "heads": 2, "feed_forward": 12, "tied_embeddings": "none"}
TRANSFORMER |= {"encoder_layers": 2, "decoder_layers": 1}
FED = {"decoder": "lstm", "decoder_layers": 2, "input_feeding": True, "attention": "multi_head", "attention_heads": 2}
#: Models, and seeds that make them end some of their translations, at different places.
GREEDY: dict[str, tuple[dict[str, Any], int]] = {
    "additive": (SMALL, 2),
    "fed": ({**SMALL, **FED}, 1),
    "none": ({**SMALL, "attention": "none"}, 5),
    "monotonic": ({**SMALL, "attention": "local_m"}, 2),
    "of attention": ({**SMALL, "attention": "attention_over_attention", "max_positions": 12}, 2),
    "transformer": ({**TRANSFORMER, "max_positions": 40}, 6),
    "transformer-post": ({**TRANSFORMER, "max_positions": 40, "norm": "post", "positions": "rotary"}, 7),
    "transformer-short": ({**TRANSFORMER, "max_positions": 5}, 6),
    "soft_feedback": ({"family": "soft_feedback", "encoder_size": 6, "decoder_size": 8}, 6),
}


def greedy_model(name: str, **changes: Any) -> AutoregressiveModel:
    """Untrained, but large of weight: what it says depends on what it reads."""
    values, seed = GREEDY[name]
    torch.manual_seed(seed)
    model = build(TypeAdapter[ModelConfig](ModelConfig).validate_python(values | changes), PIECES, PIECES)
    assert isinstance(model, AutoregressiveModel)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5 if isinstance(model, Transformer) else 3.0)
        if isinstance(model, Transformer):
            model.output.weight[EOS_ID] *= 2.0
        elif isinstance(model, RecurrentModel):
            model.output.bias[EOS_ID] += 2.0
        else:
            model.get_parameter("context.bias")[EOS_ID - PIECES] += 1.0
    return model.eval()


def longest_of(model: AutoregressiveModel, longest_source: int) -> int:
    """Target tokens of a batch before it is cut: twice the longest source and ten, if the model has the places."""
    longest = 2 * longest_source + 10
    return min(longest, model.max_target_tokens or longest)


@pytest.mark.parametrize("name", GREEDY)
def test_a_batch_of_translations_is_each_of_its_sentences(name: str) -> None:
    """In ragged batches, of which some sentences end long before others and some never."""
    model, sources = greedy_model(name), random_sources(12, 7)
    lengths = []
    for numbers in (np.arange(12), np.array([3]), np.array([5, 5, 1])):
        batch = make_batch(pairs(sources), numbers)
        limit = longest_of(model, int(batch.source_lengths.max()))
        found = translate_batch(model, batch)
        for number, ids in zip(numbers, found, strict=True):
            alone = translate(model, sources[number], limit)
            assert ids == [token for token in alone if token != EOS_ID]
            assert len(alone) == limit or alone[-1] == EOS_ID
            lengths.append(len(ids))
    assert len(set(lengths[:12])) > 1, "all are of one length, so this says nothing of those that end"


def test_a_translation_that_does_not_end_is_cut() -> None:
    model = lively_model(1).eval()
    with torch.no_grad():
        model.output.bias[EOS_ID] = -1e3
    found = translate_batch(model, make_batch(pairs([[7, EOS_ID], [5, 6, 7, EOS_ID]]), np.arange(2)))
    assert [len(ids) for ids in found] == [2 * 4 + 10] * 2


def test_a_translation_that_ends_at_once_is_empty() -> None:
    model = lively_model(1).eval()
    with torch.no_grad():
        model.output.bias[EOS_ID] = 1e3
    assert translate_batch(model, make_batch(pairs([[7, EOS_ID], [EOS_ID]]), np.arange(2))) == [[], []]


@pytest.mark.parametrize("name", ["additive", "transformer"])
def test_padding_and_unknown_are_never_said(name: str) -> None:
    """However likely they are: the next likeliest token is."""
    model, batch = greedy_model(name), make_batch(pairs([[7, 9, EOS_ID]]), np.array([0]))
    likeliest = translate_batch(model, batch)[0][0]
    output = model.get_parameter("output.weight")
    with torch.no_grad():
        output[[PAD_ID, BOS_ID, UNK_ID]] = 2 * output[likeliest]
        if name == "additive":
            bias = model.get_parameter("output.bias")
            bias[[PAD_ID, BOS_ID, UNK_ID]] = 2 * bias[likeliest] + 9.0
    decoded = model(batch.source_ids, batch.source_lengths, torch.tensor([[BOS_ID]]))
    assert int(decoded.logits.argmax()) in (PAD_ID, BOS_ID, UNK_ID)
    found = translate_batch(model, batch)[0]
    assert found[0] == likeliest
    assert not set(found) & {PAD_ID, BOS_ID, UNK_ID}


def test_translations_read_the_sentences_before() -> None:
    model = greedy_model("additive", context_sentences=2)
    sources = random_sources(12, 6)
    before = [random_sources(i % 3, 5, seed=i) for i in range(12)]
    sentences = token_arrays([ids for row in before for ids in row])
    counts = np.cumsum([0, *map(len, before)], dtype=np.int64)
    alone = pairs(sources)
    corpus = ParallelArrays(alone.source, alone.target, ContextArrays(sentences, counts, 2))
    batch = make_batch(corpus, np.arange(12))
    limit = longest_of(model, int(batch.source_lengths.max()))
    found = translate_batch(model, batch)
    for ids, source, context in zip(found, sources, before, strict=True):
        assert ids == [token for token in translate(model, source, limit, context) if token != EOS_ID]
    assert found != translate_batch(model, make_batch(alone, np.arange(12)))


# --- of a corpus, as text --------------------------------------------------------------------------------------------


def corpus_model(corpus: Corpus) -> AutoregressiveModel:
    torch.manual_seed(2)
    model = build_model(tiny_config(corpus.directory.parent), corpus)
    assert isinstance(model, AutoregressiveModel)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
        model.get_parameter("output.bias")[EOS_ID] += 3.0
    return model.eval()


@pytest.mark.parametrize(
    ("asked", "given", "batch_tokens"), [(1, 1, 1), (7, 7, 1), (7, 7, 200), (30, 30, 10_000), (1000, 30, 200)]
)
def test_the_first_sentences_are_translated_in_their_order(
    reverse_corpus: Corpus, asked: int, given: int, batch_tokens: int
) -> None:
    model, arrays = corpus_model(reverse_corpus), reverse_corpus.arrays("validation")
    samples = translate_validation(model.train(), reverse_corpus, arrays, asked, batch_tokens)
    assert model.training
    examples = list(reverse_corpus.examples("validation"))[:given]
    assert [(sample.source, sample.reference) for sample in samples] == [(e.source, e.target) for e in examples]
    source, target = reverse_corpus.tokenizer("source"), reverse_corpus.tokenizer("target")
    for sample in samples:
        ids = source.encode_ids(sample.source)
        whole = target.decode(greedy(model.eval(), ids, 2 * 26 + 10)).text
        # The longest of a batch says where its translations are cut.
        assert whole.startswith(sample.translation)
        assert whole == sample.translation or len(sample.translation.split()) >= 2 * len(ids) + 10
    assert len({sample.translation for sample in samples}) > given / 6


# --- BLEU and chrF ---------------------------------------------------------------------------------------------------

TEXTS = [
    ("The cat sat on the mat.", "The cat is sitting on the mat."),
    ("It is raining, again!", "it is raining again"),
    ("Guten Tag, Frau Müller.", "Guten Tag, Frau Müller."),
    ("", "An answer was wanted here."),
]


def samples_of(texts: list[tuple[str, str]]) -> list[Sample]:
    return [Sample("what it was made from", reference, translation) for translation, reference in texts]


def test_bleu_and_chrf_are_sacrebleus() -> None:
    translations, references = [text for text, _ in TEXTS], [reference for _, reference in TEXTS]
    bleu, chrf = score(samples_of(TEXTS))
    assert bleu == BLEU().corpus_score(translations, [references]).score
    assert chrf == CHRF().corpus_score(translations, [references]).score
    assert 20.0 < bleu < chrf < 90.0


def test_a_bleu_to_the_letter() -> None:
    """Precisions 4/4, 2/3, 1/2, the last 1/2 of 1 by smoothing; a brevity penalty of exp(1 - 5/4)."""
    found, _ = score(samples_of([("a b c e", "a b c d e")]))
    precisions = [4 / 4, 2 / 3, 1 / 2, 0.5 / 1]
    assert found == pytest.approx(100 * math.exp(1 - 5 / 4) * math.prod(precisions) ** 0.25)


def test_the_right_words_are_100_and_none_of_them_0() -> None:
    assert score(samples_of([(text, text) for _, text in TEXTS])) == pytest.approx((100.0, 100.0))
    assert score(samples_of([("", text) for _, text in TEXTS])) == (0.0, 0.0)
    assert score(samples_of([("a", "b")])) == (0.0, 0.0)


def test_case_counts() -> None:
    assert score(samples_of([("IT IS RAINING AGAIN", "it is raining again")]))[0] < 1.0


def test_a_text_that_looks_tokenized_is_no_warning() -> None:
    """sacreBLEU says so of many periods apart from their words."""
    assert score(samples_of([("that is it .", "that is it .")] * 200))[0] == pytest.approx(100.0)


def test_what_is_not_asked_for_is_not_there() -> None:
    assert Validation(loss=1.0, accuracy=0.5, exact_match=0.0) == Validation(1.0, 0.5, 0.0, bleu=None, chrf=None)
