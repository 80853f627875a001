"""An exported bundle as the start of a run: its tokenizers, and its weights as they are stored.

A run begins with another run's directory (``checkpoint.load_start``, ``corpus.prepare``) or with a bundle, for whoever
has the model and not the run that made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from service.bundle.errors import BundleError
from service.bundle.manifest import MANIFEST_FILE, TokenizerEntry
from service.bundle.repository import Bundle, load_bundle
from service.bundle.tokenizer import Tokenizer
from training.checkpoint import check_start
from training.config import TokenizersConfig
from training.errors import CheckpointError, CorpusError
from training.widening import widened


class StartBundle:
    """A checked bundle that training can go on from."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    @classmethod
    def at(cls, path: Path) -> StartBundle | None:
        """None where ``path`` is a run's directory. Raises CorpusError where it is neither, or a damaged bundle's."""
        if not (path / MANIFEST_FILE).is_file():
            if not (path / "data").is_dir():
                raise CorpusError(f"start_from: {path} is neither a run's directory nor a bundle's (<model>/<version>)")
            return None
        try:
            return cls(load_bundle(path))
        except BundleError as error:
            raise CorpusError(f"start_from: {error}") from error

    @property
    def tokenizers(self) -> TokenizersConfig:
        """How they were made. Raises CorpusError where the bundle, of another Heed, does not say it."""
        try:
            return TokenizersConfig.model_validate(self._bundle.manifest.provenance.config.get("tokenizers"))
        except ValidationError as error:
            raise CorpusError(
                f"start_from: {self._bundle.label} does not tell how its tokenizers were made: start from its run"
            ) from error

    def tokenizer(self, side: str) -> Tokenizer:
        return self._bundle.source_tokenizer if side == "source" else self._bundle.target_tokenizer

    def tokenizer_path(self, side: str) -> Path:
        return self._bundle.path(self._entries[side].file)

    @property
    def _entries(self) -> dict[str, TokenizerEntry]:
        manifest = self._bundle.manifest
        return {"source": manifest.source_tokenizer, "target": manifest.target_tokenizer}

    def holds_out(self, part: str, sha256: str) -> bool:
        """Was the file of "validation" or "test" with this hash held out when the model was trained?

        A bundle has no text: False where it was another file, whatever is in it.
        """
        return self._bundle.manifest.provenance.data_sha256.get(f"{part}.tsv") == sha256

    def weights(self, model_config: dict[str, object], data_sha256: dict[str, str]) -> dict[str, Tensor]:
        """In float32, by their names in the model; of tied weights the first name alone. Raises CheckpointError."""
        manifest, label = self._bundle.manifest, self._bundle.label
        there = manifest.provenance.config.get("model")
        if not isinstance(there, dict):
            raise CheckpointError(f"start_from: {label} does not tell its model's settings: start from its run")
        hashes = {f"{side}.spm": manifest.files[entry.file].sha256 for side, entry in self._entries.items()}
        check_start(label, there, hashes, model_config, data_sha256)
        stored = load_file(self._bundle.path(manifest.weights))
        return {
            name: tensor.to(torch.float32) if tensor.is_floating_point() else tensor for name, tensor in stored.items()
        }


def load_stored(model: nn.Module, stored: Mapping[str, Tensor], label: str) -> None:
    """Take the weights of a bundle's file: tied ones are stored once, by the first of their names, and feed-forward
    networks may be narrower. Raises CheckpointError where any are missing, or of another model."""
    there = {tensor.data_ptr() for name, tensor in model.state_dict().items() if name in stored}
    missing = [name for name, tensor in model.state_dict().items() if tensor.data_ptr() not in there]
    unknown = sorted(stored.keys() - model.state_dict().keys())
    if missing or unknown:
        raise CheckpointError(f"{label} has not the weights {', '.join([*missing, *unknown])} of this model")
    model.load_state_dict(widened(stored, model), strict=False)
