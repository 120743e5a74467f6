"""The table of measures: each name is a function of its file, and tables declare no other names."""

from __future__ import annotations

import importlib
import inspect

import pytest

from sarlib import experiments
from sarlib.measures import MEASURES


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_is_the_function_of_its_name(name: str) -> None:
    measure = getattr(importlib.import_module(f"sarlib.measures.{MEASURES[name]}"), name)
    assert list(inspect.signature(measure).parameters) == ["finished", "wanted"] and measure.__doc__


def test_tables_declare_what_can_be_measured() -> None:
    declared = [experiments.declare(name, preset="tiny", seeds=1).measurements() for name in experiments.TABLES]
    assert {wanted.name for pairs in declared for _, wanted in pairs} <= set(MEASURES)
