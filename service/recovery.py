"""A second try where the first translation has no text, lost something of its text, or goes round in circles.

What was wrong with a translation, what to ask for then, and which of the two answers is the better one. Knows bundles
and the engine's requests; no queue. Called by the translator and by ``training.evaluate``, so that what is measured is
what is served.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property

from service import numerals
from service.attention.types import Floats
from service.attention.views import aligned
from service.attention.words import Word, words_of
from service.bundle.manifest import AttentionVariant
from service.bundle.repository import Bundle
from service.bundle.tokenizer import EOS_ID, UNK_ID, TokenizedText
from service.coverage import MOST_NATS, hardly_looked_at, is_written_alike, run_around, tells_something, without
from service.engine.decoding import Decoding
from service.engine.hypothesis import FinishReason, Hypothesis
from service.engine.sentence import SentenceRequest, SentenceResult, likely_target_tokens
from service.literals import Literal, added, as_written_in, literals, missing
from service.names import respelled_names, unread_names
from service.negations import denies, negations
from service.reading_back import Reading
from service.sentences import Span

_SURE_OF_TEXT = 4  # tokens, `</s>` counted: so long a translation has text
_BEAM = 8
_LONGEST_ROUND = 12  # tokens: an emoji may take eight
_MOST_ROUNDS = 3  # "very, very, very" is none
_NO_REPEAT = 4  # tokens, where a translation went round in circles
# Two words or more, and at once the same again: "to Lisbon to Lisbon".
_DOUBLED = re.compile(r"(?<!\w)(\w+(?:\W+\w+){1,5})\W+\1(?!\w)")
_NO_SPACE = "("  # what stands behind it has none before it, and no piece is made of both
_MOST_NATS = 15.0  # that a translation may be less likely for each fault less; those that read well cost 1 to 13
_MOST_NATS_FOR_NAME = 3.0  # likewise for each name that keeps its letters; for more it is the other language's own form
_MOST_NATS_FOR_WORD = 3.0  # likewise for each word that is translated after all; for more the word is wrong, mostly
_MOST_DOUBTS = 8  # words of a sentence that are tested: what leaves out more is told all the same
_LEAST_MEAN = -1.5  # nats a token of what takes the place of circles: below, it is letters at random
# Chosen on validation sentences of version 9 (docs/benchmarks.md, "Read back"):
_SURE_MEAN = -0.15  # nats a token: a translation that is likelier need not be read back
_READ_MEAN = -0.8  # likewise of the text read back: one that is likelier is translated well
_READ_WEIGHT = 0.35  # of its log-probability, beside the translation's own
_MOST_NATS_TO_READ = 4.0  # that a translation may be less likely from which the text is read better


def kept_literals(bundle: Bundle, text: str, target_language: str = "") -> tuple[Literal, ...]:
    """What translations of ``text`` are to keep, by a model that copies it; of another nothing.

    ``target_language``: of a model of several. Numbers in words, where those of both languages are found.
    """
    if not bundle.manifest.keeps_literals:
        return ()
    reads = _only(bundle.manifest.source_languages)
    return literals(text, bundle.is_foreign, reads if numerals.knows(written_language(bundle, target_language)) else "")


def written_language(bundle: Bundle, target_language: str = "") -> str:
    """The language of its translations; empty where it may be any of several."""
    return target_language or _only(bundle.manifest.target_languages)


def _only(languages: Sequence[str]) -> str:
    return languages[0] if len(languages) == 1 else ""


def least_attention(bundle: Bundle) -> AttentionVariant:
    """What every search is asked for: the alignment where it tells what was left out, at next to no cost."""
    return "alignment" if bundle.manifest.finds_omissions else "none"


@dataclass(frozen=True, order=True)
class Faults:
    """What is wrong with a translation; the least is the best."""

    empty: bool = False
    circles: bool = False
    left_out: int = 0
    added: int = 0
    respelled: int = 0

    def none_beyond(self, other: Faults) -> bool:
        """Has this no fault of any kind that the other has not, or not so often?"""
        return all(mine <= its for mine, its in zip(astuple(self), astuple(other), strict=True))

    @property
    def worth(self) -> float:
        """How many nats less likely a translation without them may be."""
        return (
            _MOST_NATS * (self.empty + self.circles + self.left_out + self.added) + _MOST_NATS_FOR_NAME * self.respelled
        )


@dataclass(frozen=True)
class Attempt:
    """One sentence of a bundle's model, as it was read, and what was asked for it first. ``kept``: what its translation
    is to keep; ``attention``: what is to be had of it in the end, where ``request`` may ask for more; ``most_rows``:
    how wide a beam the engine can hold; ``target_language``: of a model of several."""

    bundle: Bundle
    source: TokenizedText
    kept: tuple[Literal, ...]
    request: SentenceRequest
    attention: AttentionVariant = "none"
    most_rows: int = _BEAM
    target_language: str = ""

    @property
    def text(self) -> str:
        return self.source.text

    def longer(self, result: SentenceResult) -> SentenceRequest | None:
        """What to ask where the best hypothesis has no text; None where it has, or was given.

        That the empty translation is the likeliest is a fault of such models, which a wider beam makes worse (Stahlberg
        and Byrne 2019, https://arxiv.org/abs/1908.10090): a translation must go on for a token longer.
        """
        best = result.hypotheses[0]
        least = len(best.target_ids) + 1
        if not self._may_be_asked or least > min(_SURE_OF_TEXT, self.request.max_target_tokens):
            return None
        if not self.faults(best).empty:
            return None
        return replace(self.request, decoding=replace(self.request.decoding, min_tokens=least))

    def again(self, result: SentenceResult) -> SentenceRequest | None:
        """What to ask where the best hypothesis is at fault; None where it is not, or where something else was wished:
        a beginning, samples, several hypotheses, or an end after so many tokens.

        What was left out must be written (``service.engine.phrases``), and no round of tokens twice. With no more
        attention than any search has, where a second look can be had (``looked_at``): most of it is thrown away.
        """
        decoding, best, manifest = self.request.decoding, result.hypotheses[0], self.bundle.manifest
        if not (manifest.keeps_literals and self._may_be_asked and self._wishes_the_best):
            return None
        faults = self.faults(best)
        if faults == Faults() or faults.empty or (best.finish_reason is FinishReason.LENGTH and not faults.circles):
            return None
        wider = self._wider
        if faults.circles and not decoding.no_repeat_ngram:
            wider = replace(wider, no_repeat_ngram=_NO_REPEAT)
        if faults.left_out or faults.added:
            wider = self._with_phrases(wider, (*self.kept, *_literals_of(self._unread(best))))
        elif faults.respelled:
            wider = self._with_phrases(wider, (*self.kept, *_literals_of(self._respelled(best))))
        if faults.added:
            wider = replace(wider, suppressed_ids=wider.suppressed_ids | self._other_characters())
        return self._asked(wider, least_attention(self.bundle) if manifest.capabilities.prefix else self.attention)

    def better(self, first: SentenceResult, second: SentenceResult) -> SentenceResult:
        """The first, or the second with the one hypothesis that has the least faults, of equals the likeliest by token.

        One that the model finds much less likely is none: then what is left out is better left out, and told. Instead
        of circles, which a model finds likely, any that it does not find odd will do.
        """
        before = first.hypotheses[0]
        faults, total = self.faults(before), float(before.log_probabilities.sum())
        found = []
        # Where there is something worse, names were not asked for, and do not count.
        names_alone = faults == Faults(respelled=faults.respelled)
        faults = faults if names_alone else replace(faults, respelled=0)
        for other in second.hypotheses:
            its, mean = self.faults(other), float(other.log_probabilities.mean())
            its = its if names_alone else replace(its, respelled=0)
            least = total - (faults.worth - its.worth)
            likely = float(other.log_probabilities.sum()) >= least
            instead = faults.circles and not its.circles and mean >= _LEAST_MEAN
            if its < faults and other.finish_reason is not FinishReason.LENGTH and (likely or instead):
                found.append((its, -mean, other))
        if not found:
            return first
        return replace(second, hypotheses=(min(found, key=lambda one: one[:2])[2],))

    def may_be_read_back(self, result: SentenceResult) -> bool:
        """Is it worth asking the model of the other direction for the best hypothesis? Whoever wishes for greedy search
        wishes for speed, and what is very likely is right, mostly."""
        best, beam = result.hypotheses[0], self.request.decoding.beam_size
        if beam == 1 or not (self._may_be_asked and self._wishes_the_best):
            return False
        return float(best.log_probabilities.mean()) < _SURE_MEAN and best.finish_reason is not FinishReason.LENGTH

    @staticmethod
    def reads_badly(reading: Reading) -> bool:
        """Is the text so unlikely, given its translation, that another may be truer to it?"""
        return reading.mean < _READ_MEAN

    def several(self) -> SentenceRequest:
        """What to ask for hypotheses to choose from, with all that is to be kept."""
        wider = self._with_phrases(self._wider, self.kept) if self.kept else self._wider
        return self._asked(wider, least_attention(self.bundle))

    def truest(
        self, first: SentenceResult, reading: Reading, second: SentenceResult, readings: Sequence[Reading | None]
    ) -> SentenceResult:
        """The first, or the second with the one hypothesis that is the likeliest by both, of those from which the text
        is read better: with no fault that the first has not, no other word that it lacks, no negation lost, and not
        much less likely. ``readings``: of the second's hypotheses, in their order.
        """
        before = first.hypotheses[0]
        faults, total, doubts = self.faults(before), float(before.log_probabilities.sum()), self._lacking(before)
        chosen, most = first, total + _READ_WEIGHT * reading.log_probability
        for other, read in zip(second.hypotheses, readings, strict=True):
            likely = float(other.log_probabilities.sum())
            if read is None or read.log_probability <= reading.log_probability:
                continue
            if likely < total - _MOST_NATS_TO_READ or other.finish_reason is FinishReason.LENGTH:
                continue
            both = likely + _READ_WEIGHT * read.log_probability
            if both > most and self.faults(other).none_beyond(faults) and self._lacking(other) <= doubts:
                chosen, most = replace(second, hypotheses=(other,)), both
        return chosen

    def looked_at(self, chosen: SentenceResult) -> SentenceRequest | None:
        """What to ask for the attention of what was chosen: to write it once more. None where it has enough."""
        (hypothesis,) = chosen.hypotheses
        alignment = self.bundle.manifest.alignment
        if self.attention == "none" or not self.bundle.manifest.capabilities.prefix:
            return None
        if self.attention == "alignment" and alignment is not None and alignment.map in hypothesis.attention:
            return None
        given = Decoding(prefix_ids=hypothesis.target_ids)
        return replace(
            self.request, decoding=given, max_target_tokens=len(hypothesis.target_ids), attention=self.attention
        )

    def with_attention(self, chosen: SentenceResult, looked: SentenceResult) -> SentenceResult:
        """``chosen``, with what ``looked_at`` gave; its numbers stay those that it was chosen by."""
        (hypothesis,) = chosen.hypotheses
        return replace(chosen, hypotheses=(replace(hypothesis, attention=looked.hypotheses[0].attention),))

    def doubtful(self, result: SentenceResult) -> list[Word]:
        """Words of the text to be tested one by one (``request_without``): those that the best hypothesis hardly looked
        at, of many those that it looked at the least; and those of negation, where it denies nothing.

        None of a model that cannot tell, and of a translation that was given, cut, or made without attention.
        """
        best = result.hypotheses[0]
        if not self._may_be_asked or best.finish_reason is FinishReason.LENGTH:
            return []
        hardly = [word for _, word in sorted(self._hardly_looked_at(best), key=lambda one: one[0])]
        lost = self._lost_negations(best) if self._tells(best) else []
        worth = [word for word in dict.fromkeys((*lost, *hardly)) if without(self.text, _span(word))]
        return worth[:_MOST_DOUBTS]

    def request_without(self, word: Word, result: SentenceResult) -> SentenceRequest:
        """What to ask to learn how likely the best hypothesis is of the text without ``word``, one of ``doubtful``."""
        return self._request_without(_span(word), result)

    def request_without_run(self, word: Word, result: SentenceResult) -> SentenceRequest | None:
        """Likewise without those beside it that are hardly looked at either; None where there is none, or no text would
        be left."""
        hardly = {one for _, one in self._all_hardly_looked_at(result.hypotheses[0])}
        run = run_around(word, hardly, self._words)
        return None if run == _span(word) or not without(self.text, run) else self._request_without(run, result)

    def _request_without(self, span: Span, result: SentenceResult) -> SentenceRequest:
        given = result.hypotheses[0].target_ids
        rest = without(self.text, span)
        return replace(
            self.request,
            source_ids=tuple(self.bundle.encode_ids(rest, self.target_language)),
            decoding=Decoding(prefix_ids=given),
            max_target_tokens=len(given),
            attention="none",
        )

    @staticmethod
    def rests_on_it(result: SentenceResult, without_it: SentenceResult) -> bool:
        """Is the best hypothesis much less likely without a word? ``without_it``: what ``request_without`` gave."""
        with_it, rest = (one.hypotheses[0].log_probabilities.sum() for one in (result, without_it))
        return bool(with_it - rest > MOST_NATS)

    def with_words(self, left_out: Sequence[Word]) -> SentenceRequest | None:
        """What to ask so that a translation does not leave these words out; None where something else was wished.

        Several hypotheses with their attention, of which one may have them. Names must be written as they are. For
        words of negation nothing is asked: "Something is wrong" says "etwas stimmt nicht" in its own way, and the
        search would find "Nothing is wrong" for it. They are told.
        """
        if not (set(left_out).difference(self._negations) and self._wishes_the_best):
            return None
        names = [Literal(_span(word), word.text) for word in left_out if self._is_name(word)]
        wider = self._with_phrases(self._wider, (*self.kept, *names)) if names else self._wider
        return self._asked(wider, "alignment")

    def covering(self, first: SentenceResult, second: SentenceResult, left_out: Sequence[Word]) -> SentenceResult:
        """The first, or the second with the one hypothesis that looks at the most of what was left out: with no fault
        that the first has not, no other word that it lacks, no negation lost, and not much less likely."""
        before = first.hypotheses[0]
        faults, total = self.faults(before), float(before.log_probabilities.sum())
        doubts = self._lacking(before)
        found = []
        for place, other in enumerate(second.hypotheses):
            still = self._lacking(other)
            mended = [word for word in left_out if word not in still and word not in self._negations]
            least = total - sum(map(self._most_nats, mended))
            if not mended or other.finish_reason is FinishReason.LENGTH or not still <= doubts:
                continue
            if float(other.log_probabilities.sum()) >= least and self.faults(other).none_beyond(faults):
                found.append((-len(mended), place))
        if not found:
            return first
        return replace(second, hypotheses=(second.hypotheses[min(found)[1]],))

    def _most_nats(self, word: Word) -> float:
        return _MOST_NATS if self._is_name(word) else _MOST_NATS_FOR_WORD

    def _is_name(self, word: Word) -> bool:
        pieces = [token.piece for token in self.source.tokens[word.begin_token : word.end_token]]
        return is_written_alike(word, self.text, pieces)

    def _lacking(self, hypothesis: Hypothesis) -> set[Word]:
        """What it hardly looks at, but for words of negation, of which it is asked whether they are lost."""
        hardly = {word for _, word in self._hardly_looked_at(hypothesis)}
        return hardly.difference(self._negations).union(self._lost_negations(hypothesis))

    def _lost_negations(self, hypothesis: Hypothesis) -> list[Word]:
        """All of the text's where it denies nothing, and otherwise none."""
        if not self._negations:
            return []
        written = self.bundle.decode(hypothesis.target_ids)
        denied = any(denies(word.text, self._writes) for word in words_of(written.text, written.tokens))
        return [] if denied else self._negations

    def _tells(self, hypothesis: Hypothesis) -> bool:
        """Is there what tells what a translation leaves out?"""
        manifest = self.bundle.manifest
        alignment = manifest.alignment
        return manifest.finds_omissions and alignment is not None and alignment.map in hypothesis.attention

    def _hardly_looked_at(self, hypothesis: Hypothesis) -> list[tuple[float, Word]]:
        """Without what tells nothing, and what is looked for by itself (``kept``)."""
        return [
            (most, word)
            for most, word in self._all_hardly_looked_at(hypothesis)
            if tells_something(word.text, self.bundle.unaligned_words)
            and not any(one.span.begin < word.end and word.begin < one.span.end for one in self.kept)
        ]

    def _all_hardly_looked_at(self, hypothesis: Hypothesis) -> list[tuple[float, Word]]:
        alignment = self.bundle.manifest.alignment
        if alignment is None or not self._tells(hypothesis):
            return []
        weights: Floats = aligned(hypothesis.attention[alignment.map], alignment)
        written = weights[[one != EOS_ID for one in hypothesis.target_ids]]
        return hardly_looked_at(written, self._words)

    @cached_property
    def _words(self) -> tuple[Word, ...]:
        return words_of(self.text, self.source.tokens)

    @cached_property
    def _says_nothing_twice(self) -> bool:
        words = re.findall(r"\w+", self.text.casefold())
        return len(words) == len(set(words))

    @cached_property
    def _negations(self) -> list[Word]:
        """Those of the text; none where it may be of several languages, or what it is translated to is not known."""
        reads = _only(self.bundle.manifest.source_languages)
        return negations(self.text, self._words, reads) if reads and self._writes else []

    @property
    def _writes(self) -> str:
        return written_language(self.bundle, self.target_language)

    @property
    def _wishes_the_best(self) -> bool:
        """Is one translation wished for, the best there is? No samples, not several, nothing that it begins with."""
        decoding = self.request.decoding
        return decoding.sampling is None and decoding.hypotheses == 1 and not decoding.prefix_ids

    @property
    def _wider(self) -> Decoding:
        """The search of a second try: a wide beam, and all of it to choose from."""
        decoding = self.request.decoding
        beam = max(min(_BEAM, self.most_rows), decoding.beam_size)
        return replace(decoding, beam_size=beam, hypotheses=beam)

    def _with_phrases(self, decoding: Decoding, kept: Sequence[Literal]) -> Decoding:
        return replace(decoding, phrases=self._phrases(kept), space_id=self.bundle.target_tokenizer.space_id)

    def _asked(self, decoding: Decoding, attention: AttentionVariant) -> SentenceRequest:
        most = self.request.max_target_tokens
        likely = likely_target_tokens(len(self.request.source_ids), most) + sum(map(len, decoding.phrases))
        return replace(self.request, decoding=decoding, max_target_tokens=min(most, likely), attention=attention)

    @property
    def _may_be_asked(self) -> bool:
        """Was the translation not given, and can the model be asked for anything but greedy search?"""
        given = self.request.decoding.prefix_ids[-1:] == (EOS_ID,)
        return not given and self.bundle.manifest.capabilities.beam

    def faults(self, hypothesis: Hypothesis) -> Faults:
        written = self.bundle.decode(hypothesis.target_ids).text
        if not written.strip():
            return Faults(empty=True)
        if not self.bundle.manifest.keeps_literals:
            return Faults()
        most = max(_MOST_ROUNDS, _rounds(self.request.source_ids))
        return Faults(
            circles=_rounds(hypothesis.target_ids) > most or (self._says_nothing_twice and _is_doubled(written)),
            left_out=len(missing(self.kept, written, self._writes)),
            added=added(self.text, written, self.bundle.is_foreign),
            respelled=len(self._respelled(hypothesis)),
        )

    def _respelled(self, hypothesis: Hypothesis) -> list[Word]:
        """Names of the text that it changes a letter or two of, or that have letters that the model cannot read."""
        written = self.bundle.decode(hypothesis.target_ids)
        respelled = respelled_names(self._words, words_of(written.text, written.tokens))
        return list(dict.fromkeys((*respelled, *self._unread(hypothesis))))

    def _unread(self, hypothesis: Hypothesis) -> list[Word]:
        """Those alone whose letters the model cannot read."""
        written = self.bundle.decode(hypothesis.target_ids)
        return unread_names(self._words, words_of(written.text, written.tokens), self.bundle.is_foreign)

    def _other_characters(self) -> frozenset[int]:
        """Bytes that begin characters such as the text has none of."""
        text = unicodedata.normalize("NFKC", self.text)
        there = {character.encode(errors="ignore")[:1] for character in text}
        values = self.bundle.target_tokenizer.byte_values.items()
        return frozenset(token for token, value in values if value > 0x7F and bytes([value]) not in there)

    def _phrases(self, kept: Sequence[Literal]) -> tuple[tuple[int, ...], ...]:
        """What must be written, in tokens, as far as it can be; nothing where there is no room for it."""
        never = {UNK_ID, *self.request.decoding.suppressed_ids}
        cut = (self._cut(literal.span, text) for literal in kept if (text := as_written_in(literal, self._writes)))
        phrases = tuple(ids for ids in cut if ids and never.isdisjoint(ids))
        room = self.request.max_target_tokens - 1
        return phrases if sum(map(len, phrases)) <= room else ()

    def _cut(self, span: Span, text: str) -> tuple[int, ...]:
        """The tokens of ``text``, with a space before them where there is one before ``span``."""
        begin = span.begin
        before = "" if begin == 0 or self.text[begin - 1].isspace() else _NO_SPACE
        tokens = self.bundle.target_tokenizer.encode(before + text).tokens
        return tuple(token.id for token in tokens if not token.special and token.begin >= len(before))


def _literals_of(words: Sequence[Word]) -> list[Literal]:
    return [Literal(_span(word), word.text) for word in words]


def _span(word: Word) -> Span:
    return Span(word.begin, word.end)


def _is_doubled(text: str) -> bool:
    return _DOUBLED.search(text.casefold()) is not None


def _rounds(ids: Sequence[int]) -> int:
    """How often at most a run of a few tokens is written one after the other."""
    most = 1
    for length in range(1, _LONGEST_ROUND + 1):
        alike = 0
        for place in range(length, len(ids)):
            alike = alike + 1 if ids[place] == ids[place - length] else 0
            most = max(most, alike // length + 1)
    return most
