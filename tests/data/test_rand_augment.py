"""RandAugment in batches against timm's, which works on one PIL picture at a time."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import stats
from timm.data import auto_augment as timm_augment
from timm.data.transforms_factory import create_transform

from sarlib.config import ConfigError
from sarlib.data import rand_augment
from sarlib.data.images import to_bytes
from sarlib.data.rand_augment import FILL, INCREASING, PLAIN, Choice

SIZE = 48
GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
WHOLE = ("Posterize", "Solarize", "SolarizeAdd")  # operations whose argument is a whole number


@pytest.fixture(scope="module")
def pixels():
    """Smooth images at full contrast, noise, and the degenerate ones: a single value, two values, black, white."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(10, 3, 6, 6, generator=generator) * 255
    smooth = F.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic").clamp(0, 255).to(torch.uint8)
    odd = torch.randint(0, 256, (6, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    odd[1], odd[2], odd[3], odd[4] = 93, odd[2] // 128 * 77, 0, 255
    odd[5] //= 5
    return torch.cat([smooth, odd])


def picture(pixels):
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def by_timm(pixels, name, argument):
    """One image through timm's own operation."""
    plain = name.removesuffix("Increasing")
    arguments = () if plain in ("AutoContrast", "Equalize", "Invert") else (int(argument) if plain in WHOLE else argument,)
    settings = {"fillcolor": FILL, "resample": Image.Resampling.BICUBIC}
    return to_bytes(timm_augment.NAME_TO_OP[name](picture(pixels), *arguments, **settings))


def arguments_of(name, n, *, seed):
    """As the policy at its widest spread of magnitudes draws them."""
    policy = rand_augment.parse("rand-m10-mstd101-inc1-p1-n1")
    generator = torch.Generator().manual_seed(seed)
    choice = rand_augment.draw(60 * n, policy=policy, generator=generator)
    return choice.argument[choice.operation == INCREASING.index(name)][:n]


@pytest.mark.parametrize("name", INCREASING)
def test_each_operation_is_timms(pixels, name):
    """Exact where pixels stay in place. Where rows or columns move, a value is cut off to bytes from float32, not double: one
    level apart in two pixels of a thousand. Rotation has torch's cubic (a = -0.75), softer than Pillow's (a = -1): less
    than one level in the mean of a smooth image, where half a pixel beside it would be eight."""
    argument = arguments_of(name, len(pixels), seed=1)
    if name in GEOMETRIC:
        argument[0] = 0
    operation = torch.full((len(pixels), 1), INCREASING.index(name))
    ours = rand_augment.apply(pixels, Choice(operation, argument[:, None])).int()
    theirs = torch.stack([by_timm(image, name, value.item()) for image, value in zip(pixels, argument)]).int()
    if name not in GEOMETRIC:
        assert torch.equal(ours, theirs)
        assert not torch.equal(ours, pixels.int())
        return
    difference = (ours - theirs).abs().float()
    assert torch.equal(ours[0], pixels[0].int()) and torch.equal(ours[0], theirs[0])
    if name == "Rotate":
        assert difference[:10].mean((1, 2, 3)).max() < 1.0
    else:
        assert difference.max() <= 1 and difference.mean() < 2e-3
    filled = (theirs == torch.tensor(FILL)[:, None, None]).all(1)
    same = (ours == torch.tensor(FILL)[:, None, None]).all(1)
    assert filled[1:].any((1, 2)).float().mean() > 0.8
    assert (filled != same).float().mean((1, 2)).max() < 0.002  # the border itself is cut in float32


@pytest.mark.parametrize(
    ("policy", "layers", "names", "alike"),
    [
        ("rand-m9-mstd0.5-inc1", 2, INCREASING, (0.5, 9, 0.5, None)),
        ("rand-m4-n3-p0.7-mstd101-inc1", 3, INCREASING, (0.7, 4, float("inf"), None)),
        ("rand-m12-mmax20-mstd2", 2, PLAIN, (0.5, 12, 2, 20)),
        ("rand", 2, PLAIN, (0.5, 10, 0, None)),
        ("rand-m2-n1-p1-inc0", 1, PLAIN, (1, 2, 0, None)),
    ],
)
def test_a_policy_says_layers_operations_chance_magnitude_its_spread_and_its_end(
    policy: str, layers: int, names: tuple, alike: tuple
) -> None:
    found = rand_augment.parse(policy)
    assert found.num_layers == layers and tuple(op.name for op in found.ops) == names
    assert {(op.prob, op.magnitude, op.magnitude_std, op.magnitude_max) for op in found.ops} == {alike}


@pytest.mark.parametrize(("spread", "mean", "most"), [("", 0.9, 0.9), ("-mstd0.5", 0.9, 1.0), ("-mstd101", 0.45, 0.9)])
def test_drawn_numbers_stay_within_the_policy(spread: str, mean: float, most: float) -> None:
    """Of Rotate, whose argument is 30 degrees at magnitude 10, to either side."""
    policy = rand_augment.parse("rand-m9-p1" + spread)
    choice = rand_augment.draw(20_000, policy=policy, generator=torch.Generator().manual_seed(0))
    strength = choice.argument[choice.operation == PLAIN.index("Rotate")].abs() / 30
    assert strength.mean().item() == pytest.approx(mean, abs=0.02) and strength.max() <= most + 1e-9


@pytest.mark.parametrize(
    "policy",
    ["augmix-m3", "rand-m9-q3", "rand-m9-tweights", "rand-m", "rand-m9.5", "rand-n2.5", "rand-p1.5", "v0", "", "rand--m9"],
)
def test_other_policies_are_refused_in_one_line(policy):
    with pytest.raises(ConfigError, match="policy") as error:
        rand_augment.parse(policy)
    assert "\n" not in str(error.value)


def drawn_by_timm(policy, n):
    """(name, argument) of every layer of n images; name None where none is applied. Arguments without one count as 0."""
    transform = timm_augment.rand_augment_transform(policy, {"translate_const": 100, "img_mean": FILL})
    found = []
    for op in transform.ops:
        op.aug_fn = lambda img, *argument, name=op.name, **_: found.append((name, float(argument[0]) if argument else 0.0))
    random.seed(0)
    np.random.seed(0)
    for _ in range(n):
        before = len(found)
        transform(None)
        found += [(None, 0.0)] * (transform.num_layers - len(found) + before)
    return found


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "rand-m5-mstd101-n3-p0.8", "rand-m6-inc1", "rand-m12-mmax20-mstd2"])
def test_operations_and_arguments_are_distributed_as_timms(policy):
    n, parsed = 10_000, rand_augment.parse(policy)
    choice = rand_augment.draw(n, policy=parsed, generator=torch.Generator().manual_seed(0))
    theirs = drawn_by_timm(policy, n)
    layers = n * parsed.num_layers
    assert choice.operation.numel() == len(theirs) == layers
    for index, name in [(-1, None), *enumerate(op.name for op in parsed.ops)]:
        ours = choice.argument[choice.operation == index].numpy()
        values = np.array([argument for found, argument in theirs if found == name])
        # four standard deviations of a difference of two shares
        assert abs(len(ours) - len(values)) / layers < 4 * (2 * (len(values) / layers) / layers) ** 0.5
        if name is None or not values.any():
            continue
        if name.startswith("Posterize"):
            values = values.clip(min=1)  # timm's 0 bits are an error of Pillow
        assert stats.ks_2samp(ours.round(9), values.round(9)).pvalue > 1e-4


def test_layers_are_drawn_apart():
    """Operation, application, magnitude and sign of one layer say nothing about another's, nor of each other."""
    policy = rand_augment.parse("rand-m5-mstd2-n2-p0.5-inc1")
    choice = rand_augment.draw(30_000, policy=policy, generator=torch.Generator().manual_seed(0))
    first, second = (choice.operation >= 0).float().unbind(1)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    shear = (choice.operation == INCREASING.index("ShearX")).any(1)
    values = choice.argument[shear][(choice.operation[shear] == INCREASING.index("ShearX"))]
    assert abs((values > 0).float().mean() - 0.5) < 0.03
    both = (choice.operation == INCREASING.index("Rotate")).all(1)
    assert both.sum() > 20 and abs(np.corrcoef(*choice.argument[both].numpy().T)[0, 1]) < 0.4


def test_the_fill_is_that_of_timms_training_transforms():
    transform = create_transform(32, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", interpolation="bicubic")
    (policy,) = (step for step in transform.transforms if isinstance(step, timm_augment.RandAugment))
    assert all(tuple(op.kwargs["fillcolor"]) == FILL and op.kwargs["resample"] == Image.Resampling.BICUBIC for op in policy.ops)


def test_an_image_is_treated_the_same_whoever_is_beside_it(pixels):
    policy = rand_augment.parse("rand-m9-mstd0.5-inc1-n3-p0.9")
    pixels = pixels.repeat(4, 1, 1, 1)
    before = pixels.clone()
    choice = rand_augment.draw(len(pixels), policy=policy, generator=torch.Generator().manual_seed(2))
    together = rand_augment.apply(pixels, choice)
    assert torch.equal(pixels, before) and not torch.equal(together, before)
    alone = torch.cat([rand_augment.apply(pixels[i : i + 1], choice[i : i + 1]) for i in range(len(pixels))])
    assert torch.equal(together, alone)


def test_layers_follow_each_other(pixels):
    names = ("SolarizeAdd", "Invert", "Equalize", "Color")
    operation = torch.tensor([[PLAIN.index(name) for name in order] for order in (names, names[::-1])])
    argument = torch.tensor([[40.0, 0, 0, 0.3], [0.3, 0, 0, 40.0]], dtype=torch.float64)
    ours = rand_augment.apply(pixels[:2], Choice(operation, argument))
    for i, order in enumerate((names, names[::-1])):
        theirs = pixels[i]
        for name, value in zip(order, argument[i].tolist()):
            theirs = by_timm(theirs, name, value)
        assert torch.equal(ours[i], theirs)
