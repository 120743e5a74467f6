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
    # boxes: Pascal VOC's mean average precision at an overlap of .5, 11-point and area, and COCO's over .50 to .95
    Metric("map07", "%", 2, "higher"),
    Metric("map50", "%", 2, "higher"),
    Metric("map", "%", 2, "higher"),
    # several classes an image; classes of pixels
    Metric("mlmap", "%", 2, "higher"),
    Metric("miou", "%", 2, "higher"),
    Metric("pixel", "%", 2, "higher"),
    # of the training images: the mean loss of the last epoch, as trained; and at the end, as tested
    Metric("train_loss", "nats", better="lower"),
    Metric("train_top1", "%", 2, "higher"),
    # what pixels alone give away, and the loss of a network that has learned nothing
    Metric("nearest_neighbour", "%", 2, "higher"),
    Metric("logistic", "%", 2, "higher"),
    Metric("chance_loss", "nats"),
    # maps of the last block: Equation 7, Equation 6, and their overlap with objects as in Table 11
    Metric("entropy", "nats"),
    Metric("components", "per map", 2),
    Metric("jaccard", "1", better="higher"),
    Metric("jaccard_released", "1", better="higher"),  # void pixels as background
    Metric("jaccard_gain", "1", better="higher"),  # above random cells
    Metric("kept", "1"),  # share of the tokens in the masks
    # the same of a clip's volume, whose components reach over frames; and of one with frames of different clips
    Metric("clip_entropy", "nats"),
    Metric("clip_components", "per clip", 2),
    Metric("mixed_entropy", "nats"),
    Metric("mixed_components", "per clip", 2),
    # what masks score there that look at no model, and maps of white noise
    # what features are worth without labels, by neighbours and by a linear classifier
    Metric("knn", "%", 2, "higher"),
    Metric("linear", "%", 2, "higher"),
    # what masks score there that look at no model
    Metric("jaccard_all", "1"),
    Metric("jaccard_random", "1"),
    Metric("jaccard_centre", "1"),
    Metric("jaccard_best", "1"),
    Metric("entropy_noise", "nats"),
    Metric("components_noise", "per map"),
    # how collapsed softmax(S) is
    Metric("peak", "1"),
    Metric("single", "%"),
    Metric("tokens", "1"),
    Metric("softmax_entropy", "nats"),
    Metric("spread", "1"),
    # Table 8: top-1 on natural adversarial images or cue conflicts; errors on corrupted images, over AlexNet's in mce
    Metric("natural", "%", 2, "higher"),
    Metric("corrupted", "%", 2, "lower"),
    Metric("mce", "%", 2, "lower"),
    # what a training costs
    Metric("seconds", "s", 1, "lower"),
    Metric("images_per_second", "images/s", 0, "higher"),
    Metric("parameters", "M", 2),
)
METRICS = {each.name: each for each in _ALL}

#: What is measured beside a metric without looking at a model: by the metric, how it is called there.
REFERENCES = {
    "jaccard": {
        "jaccard_random": "random cells",
        "jaccard_all": "all cells",
        "jaccard_centre": "centre disc",
        "jaccard_best": "grid's best",
    },
    "entropy": {"entropy_noise": "white noise"},
    "components": {"components_noise": "white noise"},
}
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
