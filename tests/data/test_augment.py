"""Augmentation of a batch, function by function, against torchvision, timm and Pillow."""

import pytest
import torch
from PIL import Image
from timm.data import Mixup
from timm.data import auto_augment as timm_augment
from timm.data.mixup import mixup_target
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as V

from sarlib.config import Augmentation
from sarlib.data import augment
from sarlib.data.images import to_bytes
from sarlib.data.rand_augment import FILL, PLAIN, Choice

SIZE = 16
SIDE = 40  # of windows that are resized
DEIT = Augmentation(crop="resized", color_jitter=0.4, rand_augment="rand-m9-mstd0.5-inc1")


def index_images(n=8):
    """Pixel (x, y) of image i is (x, y, i): shows where every pixel of a batch came from."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return torch.stack([torch.stack([x, y, torch.full_like(x, i)]) for i in range(n)]).to(torch.uint8)


def test_randaugment_replaces_jitter_after_crop_and_flip():
    """Against timm's transforms in timm's order, at a plan of theirs; the operations are compared one by one elsewhere."""
    noise = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels = V.gaussian_blur(noise, [9, 9])
    names = ("ShearX", "Equalize")
    plan = augment.Plan(
        resized=True,
        window=torch.tensor([[5, 9, 40, 33], [0, 3, 64, 50]]),
        flip=torch.tensor([True, False]),
        choice=Choice(torch.tensor([[PLAIN.index(name) for name in names]] * 2), torch.tensor([[0.2, 0.0]] * 2).double()),
    )
    ours = augment.apply(pixels, plan)
    for i, (x, y, width, height) in enumerate(plan.window.tolist()):
        picture = Image.fromarray(pixels[i].permute(1, 2, 0).contiguous().numpy())
        picture = picture.resize((64, 64), Image.Resampling.BICUBIC, box=(x, y, x + width, y + height))
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if plan.flip[i] else picture
        picture = timm_augment.shear_x(picture, 0.2, fillcolor=FILL, resample=Image.Resampling.BICUBIC)
        expected = augment.normalise(to_bytes(timm_augment.equalize(picture))[None])[0]
        assert (
            ours[i] - expected
        ).abs().mean() < 0.03  # under two levels: flattening the histogram widens the cubics' difference
    drawn = augment.draw(4, augmentation=DEIT, size=64, generator=torch.Generator())
    assert drawn.colour is None and drawn.choice is not None


def test_pad_crop_and_flip_move_whole_pixels():
    pixels = index_images()
    window = torch.tensor([[0, 0], [3, 0], [0, -2], [-3, 2]]).repeat(2, 1)
    plan = augment.Plan(window=torch.cat([window, torch.full((8, 2), SIZE)], 1), flip=torch.arange(8) >= 4)
    moved = augment.crop_and_flip(pixels, plan)
    for i in range(8):
        padded = V.pad(pixels[i], 3, padding_mode="reflect")
        expected = V.crop(padded, 3 + int(window[i, 1]), 3 + int(window[i, 0]), SIZE, SIZE)
        assert torch.equal(moved[i], V.horizontal_flip(expected) if i >= 4 else expected)


def test_a_resized_window_shows_what_it_frames():
    pixels = index_images(4) * 10
    window = torch.tensor([[2, 5, 8, 4], [2, 5, 8, 4], [0, 0, SIZE, SIZE], [6, 1, 4, 12]])
    plan = augment.Plan(window=window, resized=True, flip=torch.tensor([False, True, False, False]))
    x = augment.crop_and_flip(pixels, plan)
    for i, (left, top, width, height) in enumerate(window.tolist()):
        step = torch.arange(SIZE) + 0.5
        across, down = 10 * (left + step * width / SIZE - 0.5), 10 * (top + step * height / SIZE - 0.5)
        across = across.flip(0) if plan.flip[i] else across
        inner = slice(3, -3)  # away from the border; torch's cubic (a = -0.75) leaves a ramp of 10 a pixel by less than 0.6
        torch.testing.assert_close(x[i, 0][inner, inner], across.expand(SIZE, SIZE)[inner, inner], atol=0.6, rtol=0)
        torch.testing.assert_close(x[i, 1][inner, inner], down[:, None].expand(SIZE, SIZE)[inner, inner], atol=0.6, rtol=0)
        assert (x[i, 2] - 10 * i).abs().max() < 1e-3
    torch.testing.assert_close(x[2], pixels[2].float(), atol=1e-3, rtol=0)


def test_windows_are_drawn_like_torchvisions():
    generator = torch.Generator().manual_seed(0)
    plan = augment.draw(4000, augmentation=Augmentation(crop="resized"), size=64, generator=generator)
    torch.manual_seed(0)
    image = torch.empty(3, 64, 64)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, [0.08, 1], [3 / 4, 4 / 3]) for _ in range(4000)]).float()
    ours = plan.window[:, [1, 0, 3, 2]].float()
    assert (ours[:, :2] + ours[:, 2:]).max() <= 64
    assert (ours.mean(0) - theirs.mean(0)).abs().max() < 1.2 and (ours.std(0) - theirs.std(0)).abs().max() < 1.2


def test_colour_jitter_is_torchvisions_in_this_order():
    x = torch.rand(6, 3, 8, 8) * 255
    colour = torch.tensor([[0.6, 1, 1], [1.4, 1, 1], [1, 0.7, 1], [1, 1.3, 1], [1, 1, 0.2], [1.2, 0.8, 1.3]])
    ours = augment.jitter(x, colour) / 255
    for i, (brightness, contrast, saturation) in enumerate(colour.tolist()):
        expected = V.adjust_contrast(V.adjust_brightness(x[i] / 255, brightness), contrast)
        torch.testing.assert_close(ours[i], V.adjust_saturation(expected, saturation), atol=1e-3, rtol=0)


def test_erasing_fills_the_drawn_rectangles_only():
    augmentation = Augmentation(erasing=0.5)
    plan = augment.draw(400, augmentation=augmentation, size=SIZE, generator=torch.Generator().manual_seed(0))
    x = torch.full((400, 3, SIZE, SIZE), 7.0)
    augment.erase(x, plan.erased, plan.noise)
    changed = (x != 7).all(1)
    left, top, width, height = plan.erased.T
    assert torch.equal(changed.sum((1, 2)), width * height)
    assert all(changed[i, top[i] : top[i] + height[i], left[i] : left[i] + width[i]].all() for i in range(400))
    share = changed.float().mean((1, 2))
    assert 0.4 < (share > 0).float().mean() < 0.6 and 0.13 < share[share > 0].mean() < 0.22


def test_mixing_is_distributed_as_timms():
    """Share of the own image and choice between mixup and cutmix against timm's Mixup in batch mode."""
    augmentation = Augmentation(mixup=0.8, cutmix=1.0, mix_switch=0.3)
    generator = torch.Generator().manual_seed(0)
    ours = [augment.draw_mixing(augmentation=augmentation, size=32, generator=generator) for _ in range(3000)]
    timm = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, switch_prob=0.3, num_classes=2, label_smoothing=0.0)
    blank, theirs = torch.zeros(2, 3, 32, 32), []
    for _ in range(3000):
        theirs.append(timm._mix_batch(blank))
    share = torch.tensor([mixing.share for mixing in ours])
    assert abs(share.mean() - torch.tensor(theirs).mean()) < 0.03 and abs(share.std() - torch.tensor(theirs).std()) < 0.02
    cut = torch.tensor([mixing.box is not None for mixing in ours])
    assert abs(cut.float().mean() - 0.3) < 0.03


def test_soft_labels_are_timms():
    labels = torch.tensor([0, 3, 2, 1])
    ours = augment.soft_labels(labels, classes=5, smoothing=0.1)
    torch.testing.assert_close(ours, mixup_target(labels, 5, lam=1.0, smoothing=0.1))


@pytest.mark.parametrize("ways", [augment.one_by_one, augment.all_together], ids=lambda way: way.__name__)
def test_a_window_is_resized_as_pillow_does(ways):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (60, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    window = augment.draw(60, augmentation=Augmentation(crop="resized"), size=SIDE, generator=generator).window
    window[:2] = torch.tensor([[0, 0, SIDE, SIDE], [SIDE - 1, 0, 1, 1]])
    flip = torch.arange(60) % 3 == 0
    ours = ways(pixels, window, flip)
    theirs = []
    for image, (x, y, width, height), mirrored in zip(pixels, window.tolist(), flip):
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).crop((x, y, x + width, y + height))
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        theirs.append(to_bytes(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else picture))
    difference = (ours.int() - torch.stack(theirs).int()).abs()
    # bytes are weighed in 16-bit fixed point by torch, in 22-bit by Pillow: noise at full contrast shows it most
    assert difference.max() <= 3 and difference.float().mean() < 0.02
    assert torch.equal(ours[0], pixels[0].flip(2))
