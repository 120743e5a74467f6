"""What training and its input are to reach on a GPU. The bars on loss and kernel are the benchmark's (`sarlib.bench.bars`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sarlib.gpu_check import feeding, training


@dataclass(frozen=True, kw_only=True)
class Bar:
    """At least `limit` times the speed of `over` in the measurement `name`; without `over`, so many images a second.

    It counts on devices whose name contains `product`.
    """

    what: str
    name: str
    side: str
    over: str | None
    limit: float
    product: str = ""


_FED = {"name": feeding.NAME, "over": feeding.SYNTHETIC, "limit": 0.90}

BARS = (
    Bar(what="ViT-S/16 + SAR, images/s", name=training.NAME, side=training.SAR, over=None, limit=8000.0, product="H100"),
    Bar(what="ViT-S/16 + SAR, speed over timm's", name=training.NAME, side=training.SAR, over=training.STOCK, limit=1.15),
    Bar(what="made images on the device, speed over synthetic", **_FED, side=feeding.RESIDENT),
    Bar(what="made images in a memory map, speed over synthetic", **_FED, side=feeding.STREAMED),
    Bar(what="CIFAR-10 on the device, speed over synthetic", **_FED, side=feeding.CIFAR),
)


def judge(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One entry a bar whose measurement the report holds, as `sarlib.bench.bars.judge` gives them."""
    entries = []
    for bar in BARS:
        for measurement in report["measurements"]:
            if measurement["name"] != bar.name or bar.product not in report["device"]:
                continue
            if (speed := _speed(bar, measurement)) is not None:
                value, low, high = speed
                verdict = "reached" if low >= bar.limit else "missed" if high < bar.limit else "open"
                entries.append(
                    {
                        "what": bar.what,
                        "at_least": True,
                        "limit": bar.limit,
                        "value": value,
                        "low": low,
                        "high": high,
                        "verdict": verdict,
                    }
                )
    return entries


def _speed(bar: Bar, measurement: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Value and 95 % interval, from times: their inverse. None if the side was not measured."""
    if bar.over is None:
        sides = [side for side in measurement["sides"] if side["name"] == bar.side]
        images = measurement["settings"]["B"]
        return next(((images / side["median"], images / side["high"], images / side["low"]) for side in sides), None)
    ratios = [ratio for ratio in measurement["ratios"] if (ratio["side"], ratio["over"]) == (bar.side, bar.over)]
    return next(((1 / ratio["value"], 1 / ratio["high"], 1 / ratio["low"]) for ratio in ratios), None)
