"""Every metric that stands in a CSV: its unit, how many decimals are printed, and which direction is better."""

from __future__ import annotations

from dataclasses import dataclass

from sarlib.config import ConfigError


@dataclass(frozen=True)
class Metric:
    """`better` is "higher", "lower" or None where neither is."""

    name: str
    unit: str
    decimals: int = 3
    better: str | None = None


METRICS = {
    metric.name: metric
    for metric in (
        Metric("top1", "%", 2, "higher"),
        Metric("top5", "%", 2, "higher"),
        Metric("loss", "nats", 3, "lower"),
        Metric("entropy", "nats", 3),
        Metric("components", "per map", 2),
        Metric("jaccard", "1", 3, "higher"),
        Metric("jaccard_all", "1"),
        Metric("jaccard_random", "1"),
        Metric("jaccard_centre", "1"),
        Metric("jaccard_best", "1"),
        Metric("seconds", "s", 1),
        Metric("images_per_second", "images/s", 0),
        Metric("parameters", "M", 2),
        Metric("peak", "1"),
        Metric("single", "%"),
        Metric("tokens", "1"),
        Metric("softmax_entropy", "nats"),
        Metric("spread", "1"),
    )
}
#: Of the machine, not of the method: two equal runs differ in them.
MACHINE_METRICS = ("seconds", "images_per_second")
#: What a table leads with: accuracy alone hides what SAR does to the attention maps.
MAIN_METRICS = ("top1", "jaccard", "entropy", "components")


def metric(name: str) -> Metric:
    """The metric called `name`, with or without the suffix `_ema`. `ConfigError` for an unknown one."""
    plain = name.removesuffix("_ema")
    if plain not in METRICS:
        raise ConfigError(f"unknown metric {name!r}; choose from {', '.join(METRICS)}")
    return METRICS[plain]
