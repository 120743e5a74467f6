"""How a difference between two rows is declared."""

from __future__ import annotations

import pytest

from sarlib import experiments
from sarlib.config import ConfigError
from sarlib.experiments.claims import ClaimTest, Contrast, difference

HERE = {"table": "table3", "dataset": "digits"}
TERMS = ((1, "table3", "ViT + SAR", "digits"), (-1, "table3", "ViT", "digits"))


@pytest.mark.parametrize(
    ("found", "label"),
    [
        (difference("ViT + SAR", "ViT", **HERE), "ViT + SAR - ViT"),
        (difference("ViT + SAR", "ViT", **HERE, note=" at 25 %"), "ViT + SAR - ViT at 25 %"),
        (difference("ViT + SAR", "ViT", **HERE, label="digits"), "digits"),
    ],
)
def test_a_difference_is_one_row_minus_another(found: Contrast, label: str) -> None:
    assert found == Contrast(label, TERMS)


def test_a_sum_is_subtracted_in_parentheses() -> None:
    assert difference("ViT + SAR", "ViT + DRLoc", **HERE).label == "ViT + SAR - (ViT + DRLoc)"


def test_a_contrast_has_terms() -> None:
    with pytest.raises(ConfigError, match="contrast 'nothing' has no terms"):
        Contrast("nothing", ())


def test_differences_of_differences_add_up_to_nothing_where_rows_do_not_differ() -> None:
    """All contrasts of all tables: coefficients sum to 0, so that what all rows have in common cancels."""
    for name in experiments.TABLES:
        experiment = experiments.declare(name, preset="tiny")
        contrasts = [*experiment.contrasts, *(one for test in experiment.tests for one in test.contrasts)]
        assert all(sum(weight for weight, *_ in contrast.terms) == 0 for contrast in contrasts)


def test_the_growth_of_the_gain_is_the_longer_gain_minus_the_shorter() -> None:
    tests: dict[str, ClaimTest] = {test.claim_id: test for test in experiments.declare("table1", preset="laptop").tests}
    assert {(weight, row) for weight, _, row, _ in tests["t1b-grows"].contrasts[0].terms} == {
        (1, "ViT + SAR, 600 epochs"),
        (-1, "ViT, 600 epochs"),
        (-1, "ViT + SAR, 200 epochs"),
        (1, "ViT, 200 epochs"),
    }
