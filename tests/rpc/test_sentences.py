"""Long texts over a real socket: each sentence by itself, in its place."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from heed.v1 import attention_pb2, translation_pb2
from heed.v1 import translation_service_pb2 as messages
from heed.v1.translation_service_pb2 import TranslateRequest
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

from service import presenter
from service.bundle.repository import Bundle
from tests.rpc.calls import info, refused

SPLIT = messages.SENTENCE_SPLITTING_SENTENCES
TEXT = " Abc. \n\n  👍 cab, 12 年!\u00a0 CAB? "
SENTENCES = ["Abc.", "👍 cab, 12 年!", "CAB?"]


async def translated(stub: TranslationServiceStub, *texts: str, **fields: Any) -> list[translation_pb2.Translation]:
    reply = await stub.Translate(TranslateRequest(model="letters", contents=texts, **fields))
    return list(reply.translations)


@pytest.mark.parametrize("view", attention_pb2.AttentionView.values()[1:])
async def test_each_sentence_has_the_translation_and_the_attention_that_it_has_alone(
    stub: TranslationServiceStub, view: Any
) -> None:
    options = attention_pb2.AttentionOptions(view=view)
    alone = await translated(stub, *SENTENCES, attention=options)
    (whole,) = await translated(stub, TEXT, sentence_splitting=SPLIT, attention=options)
    assert [TEXT[part.begin_offset : part.end_offset] for part in whole.sentences] == SENTENCES
    best, parts = whole.hypotheses[0], [part.translation for part in whole.sentences]
    for part, by_itself in zip(parts, alone, strict=True):
        assert part.hypotheses[0].text == by_itself.hypotheses[0].text
        assert part.hypotheses[0].attention == by_itself.hypotheses[0].attention
        assert [TEXT[word.begin_offset : word.end_offset] for word in part.source_words if not word.special] == [
            word.text for word in by_itself.source_words if not word.special
        ]
    for sentence, by_itself in zip(whole.sentences, alone, strict=True):
        read = [(token.begin_offset, token.end_offset) for token in sentence.translation.source_tokens]
        assert read == [
            (token.begin_offset + sentence.begin_offset, token.end_offset + sentence.begin_offset)
            for token in by_itself.source_tokens
        ]
    assert (
        best.text
        == f"{parts[0].hypotheses[0].text} \n\n  {parts[1].hypotheses[0].text}\u00a0 {parts[2].hypotheses[0].text}"
    )
    assert [best.text[part.target_begin_offset : part.target_end_offset] for part in whole.sentences] == [
        part.hypotheses[0].text for part in parts
    ]
    assert best.log_probability == pytest.approx(sum(part.hypotheses[0].log_probability for part in parts), rel=1e-5)
    assert [token.piece for token in best.tokens] == [
        token.piece for part in parts for token in part.hypotheses[0].tokens
    ]
    assert not whole.source_words
    assert not best.HasField("attention")


async def test_a_text_of_one_sentence_is_no_other_than_unsplit(stub: TranslationServiceStub) -> None:
    options = attention_pb2.AttentionOptions(view=attention_pb2.ATTENTION_VIEW_WORD)
    (one,) = await translated(stub, "  Abc, cab.", attention=options)
    (split,) = await translated(stub, "  Abc, cab.", sentence_splitting=SPLIT, attention=options)
    assert split == one


async def test_a_model_is_not_split_for_unless_it_says_so(stub: TranslationServiceStub) -> None:
    (found,) = await translated(stub, "Abc. Cab.")
    assert not found.sentences
    (found,) = await translated(stub, "Abc. Cab.", sentence_splitting=messages.SENTENCE_SPLITTING_NONE)
    assert not found.sentences


async def test_a_sentence_that_is_too_long_is_cut_and_a_word_that_is_is_refused(
    stub: TranslationServiceStub, letters: Bundle
) -> None:
    """The model reads 64 tokens, a character each."""
    long = " ".join(["abcdefghi"] * 30)
    found, bad, last = await translated(stub, long, "a" * 100, "abc", sentence_splitting=SPLIT)
    pieces = [long[part.begin_offset : part.end_offset] for part in found.sentences]
    assert len(pieces) > 1
    assert " ".join(pieces) == long
    assert all(len(letters.source_tokenizer.encode_ids(piece)) <= 64 for piece in pieces)
    assert info(bad.status).reason == "TEXT_TOO_LONG"
    assert bad.status.message == "contents[1]: 101 tokens; letters allows 64"
    assert last.hypotheses[0].text


async def test_a_sentence_cut_short_cuts_the_text_short(stub: TranslationServiceStub) -> None:
    (found,) = await translated(stub, "Abc. Cab.", sentence_splitting=SPLIT, decoding={"max_output_tokens": 1})
    reasons = [part.translation.hypotheses[0].finish_reason for part in found.sentences]
    assert reasons == [translation_pb2.FINISH_REASON_LENGTH] * 2
    assert found.hypotheses[0].finish_reason == translation_pb2.FINISH_REASON_LENGTH


async def test_an_unknown_splitting_is_refused(stub: TranslationServiceStub) -> None:
    _, error = await refused(stub.Translate(TranslateRequest(contents=["a"], sentence_splitting=9)))  # type: ignore[arg-type]
    assert (error.reason, error.metadata["field"]) == ("INVALID_FIELD", "sentence_splitting")


class _Panic(BaseException):  # as the libraries in Rust raise it
    pass


async def test_a_panic_of_a_library_is_an_internal_error_with_an_id(
    stub: TranslationServiceStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panic(*arguments: object) -> None:
        raise _Panic("not for the caller")

    monkeypatch.setattr(presenter, "readable_parts", panic)
    request = TranslateRequest(model="letters", contents=[TEXT], sentence_splitting=SPLIT)
    code, why = await refused(stub.Translate(request, timeout=30.0))
    assert code is grpc.StatusCode.INTERNAL
    assert why.metadata["request_id"]
    assert "not for the caller" not in str(why)
    assert (await translated(stub, "abc"))[0].hypotheses
