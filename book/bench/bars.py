"""The figures that the method's cost is to stay within, and what a report says of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench import augmentation, device, loss, step


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A limit, `at_least` or at most, on `side` over `over` in the measurement `name` with these `settings`.

    Without `over` it is on the median seconds of `side`. It counts on devices of this `kind` whose name contains `product`.
    """

    what: str
    kind: str
    name: str
    settings: Mapping[str, Any]
    side: str
    over: str | None
    limit: float
    at_least: bool
    product: str = ""


_SMALL = {"B": 256, "H": 6, "maps": "random", "threads": 1}
_LARGE = {"B": 1024, "H": 6, "k": 14}
_VIT = {"model": "vit_small_patch16_224"}
_COMPILED = {**_VIT, "compiled": True}
_GPU = {"kind": "cuda", "product": "H100"}

BARS = (
    Bar(what="loss, released algorithm over ours, k = 14", kind="cpu", name=loss.NAME, settings={**_SMALL, "k": 14},
        side=loss.RELEASED, over=loss.OURS, limit=8.0, at_least=True),
    Bar(what="loss, released algorithm over ours, k = 7", kind="cpu", name=loss.NAME, settings={**_SMALL, "k": 7},
        side=loss.RELEASED, over=loss.OURS, limit=12.0, at_least=True),
    Bar(what="ViT-S/16 step with SAR over timm's without", kind="cpu", name=step.NAME, settings={**_VIT, "compiled": False},
        side=step.METHOD, over=step.STOCK, limit=0.95, at_least=False),
    Bar(what="DeiT's augmentation at 224 px, timm's over ours", kind="cpu", name=augmentation.NAME,
        settings={"B": 256, "pixels": 224}, side=augmentation.TIMM, over=augmentation.OURS, limit=1.5, at_least=True),
    Bar(what="loss, B = 1024, k = 14, seconds", **_GPU, name=device.KERNEL, settings=_LARGE,
        side=device.GRAPH, over=None, limit=30e-6, at_least=False),
    Bar(what="loss, released algorithm on the host over ours", **_GPU, name=device.HOST, settings=_LARGE,
        side=loss.RELEASED, over=device.GRAPH, limit=3000.0, at_least=True),
    Bar(what="ViT-S/16 step, SAR on over off", **_GPU, name=step.NAME, settings=_COMPILED,
        side=step.METHOD, over=step.WITHOUT_SKIP, limit=1.002, at_least=False),
    Bar(what="ViT-S/16 step with SAR over timm's without, compiled", **_GPU, name=step.NAME, settings=_COMPILED,
        side=step.METHOD, over=step.STOCK, limit=0.95, at_least=False),
    # 8,000 images a second, and a tenth of such a step's time for the augmentation of its images.
    Bar(what="ViT-S/16 step with SAR on 256 images, compiled, seconds", **_GPU, name=step.NAME,
        settings={**_COMPILED, "B": 256}, side=step.METHOD, over=None, limit=0.032, at_least=False),
    Bar(what="DeiT's augmentation of an image at 224 px, seconds", **_GPU, name=augmentation.NAME,
        settings={"B": 256, "pixels": 224}, side=augmentation.OURS, over=None, limit=1.25e-5, at_least=False),
)  # fmt: skip


def judge(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One entry for each bar of the report's device whose measurement it holds: what, limit, value, 95 % interval and verdict.

    "reached" or "missed": the whole interval is on that side of the limit; "open": the limit is inside.
    """
    entries = []
    for bar in BARS:
        if bar.kind != report["kind"] or bar.product not in report["device"]:
            continue
        for measurement in report["measurements"]:
            if measurement["name"] == bar.name and bar.settings.items() <= measurement["settings"].items():
                value, low, high = _value(bar, measurement)
                entries.append(
                    {"what": bar.what, "at_least": bar.at_least, "limit": bar.limit, "value": value, "low": low, "high": high,
                     "verdict": _verdict(bar, low, high)}
                )  # fmt: skip
    return entries


def _value(bar: Bar, measurement: Mapping[str, Any]) -> tuple[float, float, float]:
    if bar.over is None:
        (side,) = (side for side in measurement["sides"] if side["name"] == bar.side)
        return side["median"], side["low"], side["high"]
    (ratio,) = (ratio for ratio in measurement["ratios"] if (ratio["side"], ratio["over"]) == (bar.side, bar.over))
    return ratio["value"], ratio["low"], ratio["high"]


def _verdict(bar: Bar, low: float, high: float) -> str:
    worse, better = (low, high) if bar.at_least else (-high, -low)
    limit = bar.limit if bar.at_least else -bar.limit
    return "reached" if worse >= limit else "missed" if better < limit else "open"
