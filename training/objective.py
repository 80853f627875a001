"""What a training minimises, as one module, so that whatever runs in parallel has one ``forward`` to wrap."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from training.batches import Batch
from training.config import GuidedAlignmentConfig, TrainingConfig
from training.errors import ConfigError
from training.linear_cross_entropy import linear_cross_entropy
from training.models.interface import NOT_JUDGED, Decoded, TranslationModel

_LEAST_WEIGHT = 1e-9  # whose logarithm is still a number


class Objective(nn.Module):
    """Cross-entropy with label smoothing, in nats, summed over a batch's judged tokens; with ``r_drop``, of two passes.

    R-Drop (Liang et al. 2021, https://arxiv.org/abs/2106.14448, equation 4), halved, so that it is of the size of one
    pass: L = (CE_1 + CE_2) / 2 + alpha / 4 (KL(p_1 || p_2) + KL(p_2 || p_1)). The passes differ by their dropout alone.
    """

    def __init__(self, model: TranslationModel, config: TrainingConfig) -> None:
        super().__init__()
        self.model = model
        self.smoothing, self.r_drop, self.guided = config.label_smoothing, config.r_drop, config.guided_alignment
        if self.guided is not None:
            maps = {entry.name: entry.heads for entry in model.attention_maps if entry.kind == "cross"}
            if self.guided.head >= maps.get(self.guided.map, 0):
                raise ConfigError(
                    f"training.guided_alignment guides head {self.guided.head} of {self.guided.map}, and the model's "
                    f"maps have these heads: {maps}"
                )

    def forward(self, batch: Batch) -> Tensor:
        if self.guided is not None:
            return self._guided(batch, self.guided)
        if not self.r_drop:
            return self._one_pass(batch)
        batch = batch.twice()
        wanted = self.model.judged_targets(batch.target_ids)
        judged = wanted != NOT_JUDGED
        logits, targets = self.model.judged_logits(batch.inputs, judged), wanted[judged]
        # Judged positions come sentence by sentence: the first half is of the first pass.
        loss = cross_entropy(logits, targets, self.smoothing) / 2
        passes = functional.log_softmax(logits.float(), dim=-1)
        first, second = passes.reshape(2, -1, passes.shape[-1])
        apart = _divergence(first, second) + _divergence(second, first)
        return loss + self.r_drop / 4 * apart

    def _one_pass(self, batch: Batch) -> Tensor:
        """Without ever holding all logits, where the model's last layer is linear."""
        wanted = self.model.judged_targets(batch.target_ids)
        judged = wanted != NOT_JUDGED
        features, projection = self.model.judged_features(batch.inputs, judged), self.model.projection
        if projection is None:
            return cross_entropy(features, wanted[judged], self.smoothing)
        return linear_cross_entropy(features, projection, wanted[judged], self.smoothing)

    def _guided(self, batch: Batch, guided: GuidedAlignmentConfig) -> Tensor:
        """Cross-entropy of the tokens, and lambda times that of the head's weights against the links (equation 5)."""
        if batch.links is None:
            raise ValueError("guided alignment needs a batch with links")
        decoded: Decoded = self.model(*batch.inputs)
        wanted = self.model.judged_targets(batch.target_ids)
        judged = wanted != NOT_JUDGED
        weights = decoded.attention[guided.map][:, guided.head].float()
        looked = -(batch.links * weights.clamp_min(_LEAST_WEIGHT).log()).sum()
        return cross_entropy(decoded.logits[judged], wanted[judged], self.smoothing) + guided.weight * looked


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Summed, in float32 whatever the logits are: logits (positions, vocabulary), targets (positions,)."""
    return functional.cross_entropy(logits.float(), targets, label_smoothing=smoothing, reduction="sum")


def _divergence(first: Tensor, second: Tensor) -> Tensor:
    """KL(first || second) of log-probabilities, summed."""
    return functional.kl_div(second, first, reduction="sum", log_target=True)
