from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from service.bundle.errors import BundleError
from service.bundle.manifest import Manifest
from service.bundle.repository import Bundle, Repository
from tests.conftest import FAMILIES


def _changed(manifest: Manifest, change: Callable[[dict[str, Any]], Any]) -> bytes:
    values = json.loads(manifest.to_bytes())
    change(values)
    return json.dumps(values).encode()


def test_it_reads_what_it_writes(letters: Bundle) -> None:
    manifest = letters.manifest
    assert Manifest.from_bytes(manifest.to_bytes(), "here") == manifest


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda values: values.update(colour="red"), "colour"),
        (lambda values: values.pop("limits"), "limits"),
        (lambda values: values["limits"].update(max_source_tokens=0), "limits.max_source_tokens"),
        (lambda values: values["attention_maps"][0].update(kind="sideways"), "attention_maps.0.kind"),
        (lambda values: values["alignment"].update(map="other"), "alignment names 'other'"),
        (lambda values: values["alignment"].update(heads=[1]), "heads 1"),
        (lambda values: values["files"].pop("encode.onnx"), "files has no entry for encode.onnx"),
        (lambda values: values["graphs"].pop(0), "none of the role encode"),
        (
            lambda values: values["state"].append({"name": "state_x", "form": "rows"}),
            "encode.onnx lacks the state state_x",
        ),
        (lambda values: values["state"][0].update(form="slots"), "state.0.form"),
        (lambda values: values.update(name="../up"), "name"),
        (lambda values: values["graphs"][0]["outputs"].pop(), "encode.onnx lacks the state state_hidden"),
        (lambda values: values["graphs"].pop(2), "no decode_step graph emits attention_cross"),
    ],
)
def test_what_is_wrong_is_named(letters: Bundle, change: Callable[[dict[str, Any]], Any], place: str) -> None:
    with pytest.raises(BundleError) as refused:
        Manifest.from_bytes(_changed(letters.manifest, change), "there/manifest.json")
    assert "there/manifest.json" in str(refused.value)
    assert place in str(refused.value)


@pytest.fixture(scope="module")
def stories() -> Manifest:
    """It reads three sentences before each."""
    return Repository(FAMILIES).load("stories", 1).manifest


def test_the_graphs_say_how_many_sentences_before_each_are_read(letters: Bundle, stories: Manifest) -> None:
    assert (stories.context_sentences, letters.manifest.context_sentences) == (3, 0)
    five = _changed(stories, lambda values: values["graphs"][0]["inputs"][2].update(axes=["batch", 5, "context"]))
    assert Manifest.from_bytes(five, "here").context_sentences == 5


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (
            lambda values: values["capabilities"].update(document_context=False),
            "capabilities.document_context is False, and the graphs read 3 sentences",
        ),
        (
            lambda values: values["graphs"][0].update(inputs=values["graphs"][0]["inputs"][:2]),
            "capabilities.document_context is True, and the graphs read 0 sentences",
        ),
        (
            lambda values: values["golden_sentences"][2].update(context=["1"] * 4),
            "golden_sentences have 4 before one; the graphs read 3",
        ),
    ],
)
def test_a_context_that_the_graphs_do_not_read_is_named(
    stories: Manifest, change: Callable[[dict[str, Any]], Any], place: str
) -> None:
    with pytest.raises(BundleError) as refused:
        Manifest.from_bytes(_changed(stories, change), "there/manifest.json")
    assert place in str(refused.value)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (
            lambda values: values["capabilities"].update(document_context=True),
            "capabilities.document_context is True, and the graphs read 0 sentences",
        ),
        (
            lambda values: values["golden_sentences"][0].update(context=["a"]),
            "golden_sentences have 1 before one; the graphs read 0",
        ),
    ],
)
def test_a_model_of_single_sentences_has_no_context(
    letters: Bundle, change: Callable[[dict[str, Any]], Any], place: str
) -> None:
    with pytest.raises(BundleError) as refused:
        Manifest.from_bytes(_changed(letters.manifest, change), "there/manifest.json")
    assert place in str(refused.value)


def test_a_manifest_older_than_contexts_is_read(letters: Bundle) -> None:
    older = _changed(letters.manifest, lambda values: [golden.pop("context") for golden in values["golden_sentences"]])
    assert Manifest.from_bytes(older, "here") == letters.manifest


@pytest.mark.parametrize("kind", ["context", "context_sentence"])
def test_an_alignment_is_of_no_sentence_before(stories: Manifest, kind: str) -> None:
    (name,) = (entry.name for entry in stories.attention_maps if entry.kind == kind)
    with pytest.raises(BundleError, match="an alignment is of source and target"):
        Manifest.from_bytes(_changed(stories, lambda values: values["alignment"].update(map=name)), "here")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"null", b"[" * 200_000])
def test_no_json_object_is_no_manifest(content: bytes) -> None:
    with pytest.raises(BundleError, match="here is not a JSON object"):
        Manifest.from_bytes(content, "here")


@pytest.mark.parametrize("lacking", ["prefix", "beam"])
def test_omissions_are_found_by_models_that_can_be_asked(letters: Bundle, lacking: str) -> None:
    found = _changed(letters.manifest, lambda values: values.update(finds_omissions=True))
    assert Manifest.from_bytes(found, "here").finds_omissions

    def without(values: dict[str, Any]) -> None:
        values.update(finds_omissions=True)
        values["capabilities"][lacking] = False

    with pytest.raises(BundleError, match="finds_omissions needs an alignment, and a model with a prefix and a beam"):
        Manifest.from_bytes(_changed(letters.manifest, without), "there/manifest.json")


@pytest.mark.parametrize("lacking", ["prefix", "beam"])
def test_what_is_read_back_is_chosen_from_a_beam(letters: Bundle, lacking: str) -> None:
    found = _changed(letters.manifest, lambda values: values.update(read_back_by="srettel"))
    assert Manifest.from_bytes(found, "here").read_back_by == "srettel"

    def without(values: dict[str, Any]) -> None:
        values.update(read_back_by="srettel")
        values["capabilities"][lacking] = False

    with pytest.raises(BundleError, match="read_back_by is srettel, and the model has no prefix, or no beam"):
        Manifest.from_bytes(_changed(letters.manifest, without), "there/manifest.json")
