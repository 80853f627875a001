"""Models by the family that a config names."""

from __future__ import annotations

from training.config import ModelConfig, RecurrentConfig, SandGlassConfig, TransformerConfig
from training.models.interface import TranslationModel
from training.models.recurrent import RecurrentModel
from training.models.sandglass import SandGlass
from training.models.soft_feedback import SoftFeedbackModel
from training.models.transformer import Transformer


def build(config: ModelConfig, source_vocabulary: int, target_vocabulary: int) -> TranslationModel:
    """An untrained model. Raises ConfigError when it cannot have these vocabularies."""
    if isinstance(config, RecurrentConfig):
        return RecurrentModel(config, source_vocabulary, target_vocabulary)
    if isinstance(config, TransformerConfig):
        return Transformer(config, source_vocabulary, target_vocabulary)
    if isinstance(config, SandGlassConfig):
        return SandGlass(config, source_vocabulary, target_vocabulary)
    return SoftFeedbackModel(config, source_vocabulary, target_vocabulary)
