from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from service.bundle.errors import BundleError
from service.bundle.manifest import Manifest
from service.bundle.repository import Bundle


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


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"null", b"[" * 200_000])
def test_no_json_object_is_no_manifest(content: bytes) -> None:
    with pytest.raises(BundleError, match="here is not a JSON object"):
        Manifest.from_bytes(content, "here")
