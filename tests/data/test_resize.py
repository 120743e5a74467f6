"""Windows resized in batches against Pillow, one at a time."""

import pytest
import torch
from PIL import Image

from sarlib.config import Augmentation
from sarlib.data import augment, resize
from sarlib.data.images import to_bytes

SIZE = 40


@pytest.mark.parametrize("ways", [resize.one_by_one, resize.all_together], ids=lambda way: way.__name__)
def test_a_window_is_resized_as_pillow_does(ways):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (60, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    window = augment.draw(60, augmentation=Augmentation(crop="resized"), size=SIZE, generator=generator).window
    window[:2] = torch.tensor([[0, 0, SIZE, SIZE], [SIZE - 1, 0, 1, 1]])
    flip = torch.arange(60) % 3 == 0
    ours = ways(pixels, window, flip)
    theirs = []
    for image, (x, y, width, height), mirrored in zip(pixels, window.tolist(), flip):
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).crop((x, y, x + width, y + height))
        picture = picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        theirs.append(to_bytes(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else picture))
    difference = (ours.int() - torch.stack(theirs).int()).abs()
    # bytes are weighed in 16-bit fixed point by torch, in 22-bit by Pillow: noise at full contrast shows it most
    assert difference.max() <= 3 and difference.float().mean() < 0.02
    assert torch.equal(ours[0], pixels[0].flip(2))
