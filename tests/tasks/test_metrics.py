"""Every metric of the results has one entry, and what only needs the entries imports no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sarlib.config import ConfigError
from sarlib.tasks.metrics import MACHINE_METRICS, MAIN_METRICS, METRICS, metric

REFERENCE = sorted((Path(__file__).parents[2] / "runs" / "reference").glob("*/*.csv"))


def test_committed_results_have_these_units() -> None:
    assert REFERENCE
    for path in REFERENCE:
        pairs = pd.read_csv(path)[["metric", "unit"]].drop_duplicates()
        assert {name: str(unit) for name, unit in pairs.values} == {name: metric(name).unit for name in pairs["metric"]}, path


def test_an_average_of_the_weights_is_measured_by_the_same_metrics() -> None:
    assert metric("top1_ema") is metric("top1") is METRICS["top1"]
    with pytest.raises(ConfigError, match="unknown metric 'top2_ema'.*choose from top1, top5"):
        metric("top2_ema")


def test_names_decimals_and_directions() -> None:
    assert all(name == each.name and each.better in ("higher", "lower", None) for name, each in METRICS.items())
    assert {*MAIN_METRICS, *MACHINE_METRICS} <= METRICS.keys()
    decimals = {name: 2 if each.unit == "%" else 3 for name, each in METRICS.items()}
    decimals |= {
        "single": 3,
        "components": 2,
        "clip_components": 2,
        "mixed_components": 2,
        "seconds": 1,
        "images_per_second": 0,
        "parameters": 2,
    }
    assert {name: each.decimals for name, each in METRICS.items()} == decimals
    lower = {name for name, each in METRICS.items() if each.better == "lower"}
    assert lower == {"loss", "train_loss", "seconds", "corrupted", "mce"}


def test_declarations_and_the_store_need_no_torch() -> None:
    parts = ["tasks.metrics", "models"] + [
        f"trainer.{name}" for name in ("recipes", "schedules", "distributed", "interruption", "checkpoint")
    ]
    imports = "; ".join(f"import sarlib.{part}" for part in parts)
    script = f"{imports}; import sys; assert not {{'torch', 'timm', 'torchvision'}} & sys.modules.keys(), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
