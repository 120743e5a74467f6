"""Every metric of the results, by name: its unit, how many decimals are printed, and which way is better. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from sarlib.config import ConfigError


@dataclass(frozen=True)
class Metric:
    """`unit` is "1" for shares and indices; `better` is higher, lower, or None for what is neither good nor bad by itself."""

    name: str
    unit: str
    decimals: int = 3
    better: str | None = None


_ALL = (
    Metric("top1", "%", 2, "higher"),
    Metric("top5", "%", 2, "higher"),
    Metric("loss", "nats", better="lower"),
    # maps of the last block: Equation 7, Equation 6, and their overlap with objects as in Table 11
    Metric("entropy", "nats"),
    Metric("components", "per map", 2),
    Metric("jaccard", "1", better="higher"),
    # the same of a clip's volume, whose components reach over frames; and of one with frames of different clips
    Metric("clip_entropy", "nats"),
    Metric("clip_components", "per clip", 2),
    Metric("mixed_entropy", "nats"),
    Metric("mixed_components", "per clip", 2),
    # what masks score there that look at no model
    Metric("jaccard_all", "1"),
    Metric("jaccard_random", "1"),
    Metric("jaccard_centre", "1"),
    Metric("jaccard_best", "1"),
    # how collapsed softmax(S) is
    Metric("peak", "1"),
    Metric("single", "%"),
    Metric("tokens", "1"),
    Metric("softmax_entropy", "nats"),
    Metric("spread", "1"),
    # what a training costs
    Metric("seconds", "s", 1, "lower"),
    Metric("images_per_second", "images/s", 0, "higher"),
    Metric("parameters", "M", 2),
)
METRICS = {each.name: each for each in _ALL}

#: Of the machine as much as of the run: no two trainings agree in them.
MACHINE_METRICS = ("seconds", "images_per_second")
#: What a table leads with: accuracy alone hides what SAR does to the attention maps.
MAIN_METRICS = ("top1", "jaccard", "entropy", "components")


def metric(name: str) -> Metric:
    """The metric called `name`, also where it is measured with the moving average of the weights (`<name>_ema`)."""
    own = name.removesuffix("_ema")
    if own not in METRICS:
        raise ConfigError(f"unknown metric {name!r}: add it to sarlib/tasks/metrics.py, or choose from {', '.join(METRICS)}")
    return METRICS[own]
