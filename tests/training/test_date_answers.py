from __future__ import annotations

import datetime
import itertools
from collections import Counter

import pytest
from babel import Locale

from training.evaluate import judge_ambiguity
from training.tasks import Example
from training.tasks.date_answers import DateAnswers
from training.tasks.dates import FIRST_DAY, LAST_DAY, DateFormatter, all_formatters, examples, with_case


def _formatters(*names: str) -> list[DateFormatter]:
    wanted = {str(Locale.parse(name)) for name in names}
    return [formatter for formatter in all_formatters() if str(formatter.locale) in wanted]


@pytest.fixture(scope="module")
def few() -> list[DateFormatter]:
    """Day before month and the other way round; a month name of two languages; native order; a weekday."""
    found = _formatters("de", "en_US", "hr", "pl", "ja")
    assert len(found) == 5 * 14
    return found


@pytest.fixture(scope="module")
def answers(few: list[DateFormatter]) -> DateAnswers:
    return DateAnswers(few)


def test_it_is_the_generators_own_inverse(few: list[DateFormatter], answers: DateAnswers) -> None:
    """Every date of a few years, every format, every case: gathered by brute force, with the generator's weights."""
    days = [FIRST_DAY + datetime.timedelta(days=n) for n in range(0, (LAST_DAY - FIRST_DAY).days + 1, 29)]
    behind: dict[str, Counter[datetime.date]] = {}
    for formatter, day in itertools.product(few, days):
        for case, weight in ((0, 0.5), (2, 0.25), (3, 0.25)):
            text, _ = with_case(*formatter.render(day), case)
            behind.setdefault(text, Counter())[day] += weight  # type: ignore[assignment]
    for text, weights in behind.items():
        posterior = answers.posterior(text)
        assert weights.keys() <= posterior.keys(), text
        for one, other in itertools.pairwise(weights):
            assert weights[one] / weights[other] == pytest.approx(posterior[one] / posterior[other]), text


@pytest.mark.parametrize(
    ("text", "dates"),
    [
        ("9 May 2018", {"2018-05-09"}),
        ("May 9, 2018", {"2018-05-09"}),
        ("05.06.49", {"2049-06-05"}),
        ("05.06.50", {"1950-06-05"}),
        ("2 lis 1992", {"1992-10-02", "1992-11-02"}),
        ("31.02.99", set()),
        ("hello", set()),
        ("", set()),
        ("9 May 1850", set()),
    ],
)
def test_known_strings(answers: DateAnswers, text: str, dates: set[str]) -> None:
    assert {date.isoformat() for date in answers.answers(text)} == dates


def test_probabilities_sum_to_one(answers: DateAnswers) -> None:
    shares = answers.posterior("2 lis 1992")
    assert sum(shares.values()) == pytest.approx(1.0)
    assert len(shares) == 2


def test_what_the_generator_writes_means_what_it_meant() -> None:
    answers = DateAnswers(_formatters("th", "ar", "zh", "tr", "bo", "fr"))
    locales = {"th", "ar", "zh", "tr", "bo", "fr"}
    generator = (example for example in examples(3))
    formatters = _formatters(*locales)
    for number, example in enumerate(itertools.islice(generator, 200)):
        date = datetime.date.fromisoformat(example.target)
        text, _ = formatters[number % len(formatters)].render(date)
        assert date in answers.answers(text)


def test_translations_are_judged_by_all_that_a_source_may_mean() -> None:
    posterior = {"a": {"1": 1.0}, "b": {"1": 0.95, "2": 0.05}, "c": {"1": 0.5, "2": 0.5}}
    sources = [Example(source, "1", "") for source in ("a", "a", "b", "b", "c", "c")]
    scores = judge_ambiguity(posterior.__getitem__, sources, ["1", "2", "1", "2", "2", "3"])
    assert (scores.single, scores.single_exact) == (2, 0.5)
    assert (scores.several, scores.several_within) == (4, 0.75)
    assert (scores.clear, scores.clear_exact) == (4, 0.5)
