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


def _metrics(names: str, unit: str, decimals: int = 3, better: str | None = None) -> dict[str, Metric]:
    return {name: Metric(name, unit, decimals, better) for name in names.split()}


METRICS = {
    **_metrics("top1 top5", "%", 2, "higher"),
    **_metrics("loss", "nats", better="lower"),
    # boxes: Pascal VOC's mean average precision at an overlap of .5, 11-point and area, and COCO's over .50 to .95
    **_metrics("map07 map50 map", "%", 2, "higher"),
    # several classes an image; classes of pixels
    **_metrics("mlmap miou pixel", "%", 2, "higher"),
    # of the training images: the mean loss of the last epoch, as trained; and at the end, as tested
    **_metrics("train_loss", "nats", better="lower"),
    **_metrics("train_top1", "%", 2, "higher"),
    # what pixels alone give away, and the loss of a network that has learned nothing
    **_metrics("nearest_neighbour logistic", "%", 2, "higher"),
    **_metrics("chance_loss", "nats"),
    # maps of the last block: Equation 7, Equation 6, and their overlap with objects as in Table 11: with void pixels left out,
    # with void pixels as background, and above random cells; the share of the tokens in the masks
    **_metrics("entropy", "nats"),
    **_metrics("components", "per map", 2),
    **_metrics("jaccard jaccard_released jaccard_gain", "1", better="higher"),
    **_metrics("kept", "1"),
    # the same of a clip's volume, whose components reach over frames; and of one with frames of different clips
    **_metrics("clip_entropy mixed_entropy", "nats"),
    **_metrics("clip_components mixed_components", "per clip", 2),
    # what features are worth without labels, by neighbours and by a linear classifier
    **_metrics("knn linear", "%", 2, "higher"),
    # what masks score there that look at no model, and maps of white noise
    **_metrics("jaccard_all jaccard_random jaccard_centre jaccard_best", "1"),
    **_metrics("entropy_noise", "nats"),
    **_metrics("components_noise", "per map"),
    # how collapsed softmax(S) is
    **_metrics("peak tokens spread", "1"),
    **_metrics("single", "%"),
    **_metrics("softmax_entropy", "nats"),
    # Table 8: top-1 on natural adversarial images or cue conflicts; errors on corrupted images, over AlexNet's in mce
    **_metrics("natural", "%", 2, "higher"),
    **_metrics("corrupted mce", "%", 2, "lower"),
    # what a training costs
    **_metrics("seconds", "s", 1, "lower"),
    **_metrics("images_per_second", "images/s", 0, "higher"),
    **_metrics("parameters", "M", 2),
}

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
