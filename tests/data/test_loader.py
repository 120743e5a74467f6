"""Training and evaluation batches: what a step yields, where it resumes, how ranks share it."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from small_batches import SIZE, batches, equal
from torchvision.transforms.v2 import functional as V

from sarlib.config import Augmentation, ConfigError
from sarlib.data import augment
from sarlib.data.images import Images, to_bytes
from sarlib.data.loader import Batch, evaluation_batches

FULL = Augmentation(crop="resized", flip=0.5, color_jitter=0.4, erasing=0.5, mixup=0.8, cutmix=1.0, label_smoothing=0.1)
DEIT = dataclasses.replace(FULL, rand_augment="rand-m9-mstd0.5-inc1", erasing=0.25)
PADDED = Augmentation(crop="pad", crop_padding=3, flip=0.5, mixup=0.8, cutmix=1.0)


@pytest.mark.parametrize("augmentation", [Augmentation(), PADDED, FULL, DEIT], ids=["none", "pad", "full", "deit"])
def test_a_step_depends_on_seed_epoch_and_step_alone(images, augmentation):
    source = batches(images, augmentation)
    whole = list(source.epoch(2))
    assert source.steps_per_epoch == len(whole) == 4
    assert equal(batches(images, augmentation).epoch(2, start=3), whole[3:])
    assert not equal(batches(images, augmentation, seed=4).epoch(2), whole)
    assert not equal(source.epoch(1), whole)
    x, target = whole[0]
    assert isinstance(whole[0], Batch) and whole[0].images is x and whole[0].targets is target
    assert x.dtype == target.dtype == torch.float32 and x.shape == (12, 3, SIZE, SIZE) and target.shape == (12, 10)
    assert torch.allclose(target.sum(1), torch.ones(12))


def test_global_generators_are_neither_used_nor_moved(images, files):
    for source in (images, files):
        torch.manual_seed(0)
        state = torch.get_rng_state()
        one = list(batches(source, DEIT).epoch(0))
        assert torch.equal(state, torch.get_rng_state())
        torch.manual_seed(1)
        assert equal(batches(source, DEIT).epoch(0), one)


def test_an_epoch_shows_each_image_once(images):
    x = torch.cat([x for x, _ in batches(images, Augmentation(), batch_size=10).epoch(0)])
    expected = augment.normalise(images.pixels)
    order = (x.flatten(1)[:, None] == expected.flatten(1)[None]).all(-1).int().argmax(1)
    assert sorted(order.tolist()) == list(range(50)) and order.tolist() != list(range(50))


@pytest.mark.parametrize("augmentation", [PADDED, FULL, DEIT], ids=["pad", "full", "deit"])
@pytest.mark.parametrize("source", ["images", "files"])
def test_ranks_slices_make_the_global_batch(source, augmentation, request):
    source = request.getfixturevalue(source)
    # 3 of 12: slices of 3 and of 4 images, whose mixing pairs do and do not cross the ranks
    for world in (3, 4):
        ranks = [batches(source, augmentation, rank=r, world_size=world).epoch(1) for r in range(world)]
        joined = [tuple(torch.cat(parts) for parts in zip(*slices)) for slices in zip(*ranks)]
        assert equal(joined, batches(source, augmentation).epoch(1))


def test_files_are_augmented_the_same_by_any_number_of_workers(files):
    whole = list(batches(files, DEIT).epoch(0))
    assert equal(batches(files, DEIT, data_workers=2).epoch(0), whole)
    assert equal(batches(files, DEIT, data_workers=2).epoch(0, start=2), whole[2:])


def test_every_picture_of_every_epoch_is_augmented_in_its_own_way(files):
    one = dataclasses.replace(files, files=files.files[:1] * len(files))
    source = batches(one, Augmentation(crop="resized", flip=0.5), batch_size=50)
    shown = torch.cat([x for epoch in (0, 1) for x, _ in source.epoch(epoch)])
    assert len(torch.unique(shown.flatten(1), dim=0)) > 95


@pytest.mark.parametrize("augmentation", [Augmentation(), PADDED, dataclasses.replace(DEIT, crop="none")])
def test_files_and_memory_agree_but_for_resized_crops(images, files, augmentation):
    assert equal(batches(files, augmentation).epoch(0), batches(images, augmentation).epoch(0))
    for i in range(len(images)):
        assert torch.equal(to_bytes(files.picture(i)), images.pixels[i])


@pytest.mark.parametrize("policy", [None, "rand-m9-mstd0.5-inc1"])
def test_how_many_images_are_augmented_at_a_time_does_not_matter(images, monkeypatch, policy):
    augmentation = dataclasses.replace(DEIT, rand_augment=policy)
    whole = list(batches(images, augmentation).epoch(0))
    monkeypatch.setattr("sarlib.data.loader._CHUNK", 5 * 4 * 3 * SIZE**2)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            assert equal(batches(images, augmentation).epoch(0), whole)
            assert equal(batches(images, augmentation, world_size=4, rank=1).epoch(0), [(x[3:6], y[3:6]) for x, y in whole])
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(1)


def test_nothing_waits_for_the_device(images):
    """Tensors of the device "meta" have no values: whatever would bring one back to the host fails on them."""
    for augmentation in (FULL, PADDED, DEIT, dataclasses.replace(DEIT, crop="pad", mixup=0.0)):
        for x, target in batches(images, augmentation, device="meta", rank=1, world_size=3).epoch(0):
            assert x.device.type == target.device.type == "meta" and x.shape == (4, 3, SIZE, SIZE)


def test_a_small_set_is_one_batch(images):
    source = batches(images.subset(range(7)), Augmentation(mixup=0.8), batch_size=12)
    assert source.steps_per_epoch == 1 and [x.shape[0] for x, _ in source.epoch(0)] == [7]


def test_what_cannot_be_batched_is_refused(images):
    with pytest.raises(ConfigError, match="16 x 16"):
        batches(images, Augmentation(), image_size=32)
    with pytest.raises(ConfigError, match="5 ranks"):
        batches(images, Augmentation(), world_size=5)
    with pytest.raises(ConfigError, match="crop_padding"):
        next(batches(images, Augmentation(crop="pad", crop_padding=SIZE)).epoch(0))


@pytest.mark.parametrize("data_workers", [0, 2])
def test_a_file_that_does_not_decode_is_named_in_one_line(files, tmp_path, data_workers):
    broken = tmp_path / "broken.png"
    broken.write_bytes(files.files[0].read_bytes()[:100])
    images = dataclasses.replace(files, files=(*files.files[:-1], broken))
    for call in (
        lambda: list(batches(images, Augmentation(), batch_size=50, data_workers=data_workers).epoch(0)),
        lambda: list(evaluation_batches(images, batch_size=20, image_size=SIZE, device="cpu", data_workers=data_workers)),
    ):
        with pytest.raises(ConfigError, match="broken.png") as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("source, data_workers", [("images", 0), ("files", 0), ("files", 2)])
def test_evaluation_shows_each_image_once_in_order(source, data_workers, request, images):
    shown = request.getfixturevalue(source)
    found = list(evaluation_batches(shown, batch_size=12, image_size=SIZE, device="cpu", data_workers=data_workers))
    assert torch.cat([index for _, index in found]).tolist() == list(range(50))
    expected = V.normalize(images.pixels / 255, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    torch.testing.assert_close(torch.cat([x for x, _ in found]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n", [8, 7])
def test_mixed_pixels_and_labels_come_from_the_same_images(n):
    """Image i is the constant i: the pixels of a mixed image tell the shares its soft label must show."""
    images = Images(
        labels=torch.arange(n),
        classes=tuple(map(str, range(n))),
        pixels=(torch.arange(n)[:, None, None, None] * 10).expand(n, 3, SIZE, SIZE).to(torch.uint8).contiguous(),
    )
    levels = augment.normalise(images.pixels)[:, 0, 0, 0]
    for augmentation in (Augmentation(cutmix=1.0), Augmentation(mixup=0.8)):
        kinds = set()
        for epoch in range(20):
            x, target = next(batches(images, augmentation, batch_size=n).epoch(epoch))
            torch.testing.assert_close((target @ levels), x[:, 0].mean((1, 2)), atol=1e-5, rtol=1e-5)
            if augmentation.cutmix:
                share = torch.stack([(x[:, 0] - level).abs().lt(1e-5).float().mean((1, 2)) for level in levels], dim=1)
                torch.testing.assert_close(target, share, atol=1e-5, rtol=0)
            kinds.add(int((target > 0).sum(1).max()))
        assert 2 in kinds  # something was mixed


def test_bytes_keep_their_place(images):
    assert torch.equal(to_bytes(images.picture(4)), images.pixels[4])
    assert F.mse_loss(images.pixels[4].float(), images.pixels[5].float()) > 0
