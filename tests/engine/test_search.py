from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from service.bundle.tokenizer import EOS_ID
from service.engine.search import NEVER_CHOSEN, choose_greedily


@given(hnp.arrays(np.float32, (3, 7), elements={"min_value": -50, "max_value": 50}))
def test_it_is_the_argmax_and_its_log_softmax(logits: np.ndarray) -> None:
    before = logits.copy()
    tokens, log_probabilities = choose_greedily(logits)
    np.testing.assert_array_equal(logits, before)
    wide = logits.astype(np.float64)
    reference = (
        wide - np.log(np.exp(wide - wide.max(-1, keepdims=True)).sum(-1, keepdims=True)) - wide.max(-1, keepdims=True)
    )
    allowed = [token for token in range(7) if token not in NEVER_CHOSEN]
    assert (tokens == np.array(allowed)[logits[:, allowed].argmax(-1)]).all()
    np.testing.assert_allclose(log_probabilities, reference[np.arange(3), tokens], atol=1e-5)


def test_great_logits_do_not_overflow() -> None:
    tokens, log_probabilities = choose_greedily(np.array([[0.0, -1e4, -1e4, 0.0, 1e4]], np.float32))
    assert tokens[0] == 4
    assert log_probabilities[0] == 0.0


def test_padding_start_and_unknown_are_never_chosen_and_keep_their_share() -> None:
    logits = np.array([[9.0, 9.0, 1.0, 9.0, 0.0]], np.float32)
    tokens, log_probabilities = choose_greedily(logits)
    assert tokens[0] == EOS_ID
    assert log_probabilities[0] == pytest.approx(1 - np.log(3 * np.exp(9) + np.exp(1) + 1), abs=1e-5)
