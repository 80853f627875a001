from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis.extra import numpy as hnp

from service.engine.search import choose_greedily


@given(hnp.arrays(np.float32, (3, 7), elements={"min_value": -50, "max_value": 50}))
def test_it_is_the_argmax_and_its_log_softmax(logits: np.ndarray) -> None:
    tokens, log_probabilities = choose_greedily(logits)
    wide = logits.astype(np.float64)
    reference = (
        wide - np.log(np.exp(wide - wide.max(-1, keepdims=True)).sum(-1, keepdims=True)) - wide.max(-1, keepdims=True)
    )
    assert (tokens == logits.argmax(-1)).all()
    np.testing.assert_allclose(log_probabilities, reference[np.arange(3), tokens], atol=1e-5)


def test_great_logits_do_not_overflow() -> None:
    tokens, log_probabilities = choose_greedily(np.array([[1e4, -1e4, 0.0]], np.float32))
    assert tokens[0] == 0
    assert log_probabilities[0] == 0.0
