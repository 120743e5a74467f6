"""Sets in folders, torchvision's and scikit-learn's: what is read, what is drawn, and every error a reader can cause."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torchvision import datasets

from sarlib import data
from sarlib.config import Augmentation, ConfigError, Data
from sarlib.data import cache, discover, folders, inspect, load
from sarlib.data.images import central_view, to_bytes
from sarlib.data.loader import TrainBatches

CLASSES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SAR_CACHE", str(tmp_path_factory.mktemp("cache")))


def save(path, value=0, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value % 256, 128, 0)).save(path)


def tree(root, name="cifar10", *, test="test", train_images=6, test_images=4, classes=CLASSES):
    """An ImageFolder tree whose pictures are all different."""
    for split, count in (("train", train_images), (test, test_images)):
        for label, kind in enumerate(classes):
            for i in range(count):
                save(root / name / split / kind / f"{i}.png", value=100 * (split != "train") + 10 * label + i)
    return root


def spec(name="cifar10", **settings):
    return Data(**{"name": name, "image_size": 8} | settings)


def values(images):
    """What tells the pictures of `tree` apart."""
    return images.pixels[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("test", ["test", "val"])
def test_a_tree_is_read_as_torchvision_reads_it(tmp_path, test):
    train, held_out = load(spec("mine"), seed=0, root=tree(tmp_path, "mine", test=test))
    for images, split in ((train, "train"), (held_out, test)):
        theirs = datasets.ImageFolder(tmp_path / "mine" / split)
        assert list(images.classes) == theirs.classes and images.labels.tolist() == theirs.targets
        assert all(torch.equal(images.pixels[i], to_bytes(theirs[i][0])) for i in range(len(theirs)))


def test_the_root_may_be_the_tree_itself(tmp_path):
    tree(tmp_path)
    tree(tmp_path, "mine", test="val")
    assert discover(tmp_path) == ("cifar10", "mine")
    assert discover(tmp_path / "mine") == ("mine",)
    train, _ = load(spec("mine"), seed=0, root=tmp_path / "mine")
    assert len(train) == 18


def test_a_subset_is_balanced_drawn_by_the_seed_and_the_test_set_is_not(tmp_path):
    tree(tmp_path)
    (one, test), (two, again) = (load(spec(train_size=7, test_size=6), seed=seed, root=tmp_path) for seed in (0, 1))
    assert sorted(one.labels.bincount().tolist()) == [2, 2, 3] and test.labels.bincount().tolist() == [2, 2, 2]
    assert values(one) != values(two) and values(test) == values(again)
    assert values(load(spec(train_size=7, test_size=6), seed=0, root=tmp_path)[0]) == values(one)


def test_large_sets_stay_files_and_show_the_same_images(tmp_path, monkeypatch):
    tree(tmp_path)
    in_memory, _ = load(spec(train_size=6), seed=0, root=tmp_path)
    monkeypatch.setattr(cache, "MEMORY_LIMIT", 6 * 3 * 64 - 1)
    as_files, _ = load(spec(train_size=6), seed=0, root=tmp_path)
    assert as_files.pixels is None and len(as_files.files) == 6
    shown = torch.stack([to_bytes(central_view(as_files.picture(i), 8)) for i in range(6)])
    assert torch.equal(shown, in_memory.pixels)


def test_the_source_can_be_forced(tmp_path, monkeypatch):
    tree(tmp_path)
    monkeypatch.setenv("SAR_INPUT", "files")
    train, test = load(spec(), seed=0, root=tmp_path)
    assert train.pixels is None and test.pixels is None
    monkeypatch.setattr(cache, "MEMORY_LIMIT", 1)
    for source in ("device", "memory"):
        monkeypatch.setenv("SAR_INPUT", source)
        assert load(spec(), seed=0, root=tmp_path)[0].image_size == (8, 8)
    monkeypatch.setenv("SAR_INPUT", "gpu")
    with pytest.raises(ConfigError, match="SAR_INPUT=gpu .*device, memory, files"):
        load(spec(), seed=0, root=tmp_path)


def test_pixels_of_another_size_are_decoded_however_many_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    _cifar10_archive(tmp_path)
    monkeypatch.setattr(cache, "MEMORY_LIMIT", 1)
    assert load(spec(image_size=48), seed=0, root=tmp_path)[0].image_size == (48, 48)


@pytest.mark.parametrize("forced", ["files", "memory"])
def test_test_images_are_cropped_as_declared_and_training_images_are_not(tmp_path, monkeypatch, forced):
    monkeypatch.setenv("SAR_INPUT", forced)
    noise = np.random.default_rng(0).integers(0, 255, (16, 20, 3), dtype=np.uint8)
    for split in ("train", "test"):
        for kind in CLASSES:
            (tmp_path / "noise" / split / kind).mkdir(parents=True)
            Image.fromarray(noise).save(tmp_path / "noise" / split / kind / "0.png")
    train, test = load(spec("noise", test_crop=0.5), seed=0, root=tmp_path)
    for images, crop in ((train, 1.0), (test, 0.5)):
        expected = central_view(Image.fromarray(noise), 8, crop=crop)
        assert np.array_equal(np.asarray(images.view(0, 8)), np.asarray(expected))
    whole, _ = load(spec("noise"), seed=0, root=tmp_path)
    assert torch.equal(to_bytes(whole.view(0, 8)), to_bytes(train.view(0, 8))), (
        "another crop has a place of its own in the cache"
    )


def _without_train(root):
    (root / "cifar10").mkdir()
    save(root / "cifar10" / "ant" / "0.png")


def _other_classes(root):
    tree(root)
    save(root / "cifar10" / "test" / "dog" / "0.png")


def _empty_class(root):
    tree(root)
    (root / "cifar10" / "train" / "dog").mkdir()
    (root / "cifar10" / "test" / "dog").mkdir()


def _no_classes(root):
    (root / "cifar10" / "train").mkdir(parents=True)
    (root / "cifar10" / "test").mkdir()


def _broken_image(root):
    tree(root)
    path = root / "cifar10" / "train" / "bee" / "3.png"
    path.write_bytes(path.read_bytes()[:40])


def _not_an_image(root):
    tree(root)
    (root / "cifar10" / "test" / "bee" / "1.png").write_text("hello")


@pytest.mark.parametrize(
    "prepare, message",
    [
        (_without_train, "expected: DATA/cifar10/train/<class>"),
        (_other_classes, "differ in their classes: dog"),
        (_empty_class, "dog holds no images"),
        (_no_classes, "holds no class folders"),
        (_broken_image, "bee/3.png"),
        (_not_an_image, "bee/1.png"),
    ],
)
def test_a_tree_that_cannot_be_used_is_told_in_one_line(tmp_path, prepare, message):
    prepare(tmp_path)
    with pytest.raises(ConfigError, match=message) as error:
        load(spec(), seed=0, root=tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "wanted, message",
    [
        (spec(train_size=19), "19 training images of cifar10 wanted, there are 18"),
        (spec(test_size=13), "13 test images of cifar10 wanted, there are 12"),
        (spec("cifar11"), "unknown data set 'cifar11'; known: shapes-object.*digits.*cifar100.*mine"),
        (spec("imagenet"), "expected DATA/imagenet/train"),
        (spec("imagenet100"), "expected DATA/imagenet/train"),
        (spec("clipart"), "expected DATA/clipart_train.txt"),
        (spec("stanford-cars"), "cannot be downloaded.*stanford_cars"),
        (spec(fingerprint="0123"), "not those that the run was declared for"),
    ],
)
def test_a_wrong_wish_is_told_in_one_line(tmp_path, wanted, message):
    tree(tree(tmp_path), "mine")
    with pytest.raises(ConfigError, match=message) as error:
        load(wanted, seed=0, root=tmp_path)
    assert "\n" not in str(error.value)


def test_without_a_data_folder_the_error_says_so(tmp_path):
    with pytest.raises(ConfigError, match="not embedded: say DATA="):
        load(spec(), seed=0, root=None)
    with pytest.raises(ConfigError, match="unknown data set 'x'"):
        load(spec("x"), seed=0, root=None)
    for call in (lambda root: load(spec(), seed=0, root=root), discover):
        with pytest.raises(ConfigError, match="nowhere does not exist"):
            call(tmp_path / "nowhere")


def test_imagenet100_is_the_listed_part_of_imagenet(tmp_path):
    wanted = folders.imagenet100()
    assert len(set(wanted)) == 100 and all(len(name) == 9 and name.startswith("n") for name in wanted)
    for split in ("train", "val"):
        for i, name in enumerate((*wanted, "n00000001", "n99999999")):
            save(tmp_path / "imagenet" / split / name / "a.JPEG", value=i)
    train, test = load(spec("imagenet100"), seed=0, root=tmp_path)
    assert train.classes == test.classes == wanted and len(train) == len(test) == 100
    whole, _ = load(spec("imagenet"), seed=0, root=tmp_path)
    assert len(whole) == 102
    (tmp_path / "imagenet" / "val" / wanted[3] / "a.JPEG").unlink()
    (tmp_path / "imagenet" / "val" / wanted[3]).rmdir()
    with pytest.raises(ConfigError, match=f"lacks 1 of the 100 classes, among them {wanted[3]}"):
        load(spec("imagenet100"), seed=0, root=tmp_path)


@pytest.mark.parametrize("folder", ["", "domainnet"])
def test_domainnet_follows_its_official_lists(tmp_path, folder):
    base = tmp_path / folder
    lines = {"train": [], "test": []}
    for split, files in (("train", 3), ("test", 2)):
        for label, kind in enumerate(("zebra", "aircraft carrier")):
            for i in range(files):
                file = f"clipart/{kind}/{split}_{i}.png"
                save(base / file, value=100 * (split == "test") + 10 * label + i)
                lines[split].append(f"{file} {label}")
        (base / f"clipart_{split}.txt").write_text("\n".join(lines[split]) + "\n")
    train, test = load(spec("clipart"), seed=0, root=tmp_path)
    assert train.classes == ("zebra", "aircraft carrier")
    assert values(train) == [0, 1, 2, 10, 11, 12] and train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert values(test) == [100, 101, 110, 111]

    for text, message in (
        ("clipart/zebra/train_0.png\n", "line 1: expected"),
        ("", "names no image"),
        ("clipart/zebra/gone.png 0\n", "does not exist"),
        (lines["train"][0], "do not name the same classes"),
    ):
        (base / "clipart_train.txt").write_text(text)
        with pytest.raises(ConfigError, match=message):
            load(spec("clipart"), seed=0, root=tmp_path)
    (base / "clipart_train.txt").write_text("\n".join(lines["train"]))
    (base / "clipart_test.txt").unlink()
    with pytest.raises(ConfigError, match="clipart_test.txt is missing"):
        load(spec("clipart"), seed=0, root=tmp_path)


def test_a_file_that_vanished_is_named(tmp_path):
    for split in ("train", "test"):
        save(tmp_path / "sketch" / "owl" / f"{split}.png")
        (tmp_path / f"sketch_{split}.txt").write_text(f"sketch/owl/{split}.png 0\nsketch/owl/lost.png 0\n")
    for call in (lambda: load(spec("sketch"), seed=0, root=tmp_path), lambda: inspect("sketch", root=tmp_path)):
        with pytest.raises(ConfigError, match="lost.png"):
            call()


def _cifar10_archive(root, seed=0):
    generator = np.random.default_rng(seed)
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for name in names:
        batch = {"data": generator.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [0, 1, 1, 0]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["airplane", "frog"]}))


def test_cifar10_in_torchvisions_layout_unless_there_is_a_tree(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    _cifar10_archive(tmp_path)
    train, test = load(spec(image_size=32), seed=0, root=tmp_path)
    theirs = datasets.CIFAR10(tmp_path, train=True)
    assert len(train) == 20 and len(test) == 4 and train.classes == ("airplane", "frog")
    assert all(torch.equal(train.pixels[i], to_bytes(theirs[i][0])) and train.labels[i] == theirs[i][1] for i in range(20))
    assert load(spec(image_size=48), seed=0, root=tmp_path)[0].image_size == (48, 48)
    tree(tmp_path)
    assert load(spec(), seed=0, root=tmp_path)[0].classes == CLASSES


def test_flowers_train_on_train_and_validation(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.Flowers102, "_check_integrity", lambda self: True)
    for i in range(1, 7):
        save(tmp_path / "flowers-102" / "jpg" / f"image_{i:05d}.jpg")
    scipy.io.savemat(tmp_path / "flowers-102" / "imagelabels.mat", {"labels": np.array([[1, 2, 1, 2, 102, 1]])})
    split = {"trnid": np.array([[1, 5]]), "valid": np.array([[2, 4]]), "tstid": np.array([[3, 6]])}
    scipy.io.savemat(tmp_path / "flowers-102" / "setid.mat", split)
    train, test = load(spec("flowers102"), seed=0, root=tmp_path)
    assert train.labels.tolist() == [0, 101, 1, 1] and test.labels.tolist() == [0, 0] and len(train.classes) == 102


def test_pets_and_cars_as_torchvision_lists_them(tmp_path):
    pets = tmp_path / "oxford-iiit-pet"
    lists = {"trainval": ("Abyssinian_1 1 1 1", "beagle_2 2 2 1"), "test": ("beagle_7 2 2 1", "Abyssinian_8 1 1 1")}
    for split, names in lists.items():
        (pets / "annotations").mkdir(parents=True, exist_ok=True)
        (pets / "annotations" / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            save(pets / "images" / f"{name.split()[0]}.jpg")
    train, test = load(spec("oxford-iiit-pet"), seed=0, root=tmp_path)
    assert train.classes == ("Abyssinian", "Beagle") and train.labels.tolist() == [0, 1] and test.labels.tolist() == [1, 0]

    cars = tmp_path / "stanford_cars"
    (cars / "devkit").mkdir(parents=True)
    scipy.io.savemat(cars / "devkit" / "cars_meta.mat", {"class_names": np.array([["AM General", "Audi"]], dtype=object)})
    for path, folder in (("devkit/cars_train_annos.mat", "cars_train"), ("cars_test_annos_withlabels.mat", "cars_test")):
        rows = np.array([[("a.jpg", 2), ("b.jpg", 1)]], dtype=[("fname", object), ("class", object)])
        scipy.io.savemat(cars / path, {"annotations": rows})
        for name in ("a", "b"):
            save(cars / folder / f"{name}.jpg")
    train, test = load(spec("stanford-cars"), seed=0, root=tmp_path)
    assert train.classes == ("AM General", "Audi") and train.labels.tolist() == test.labels.tolist() == [1, 0]


def test_a_fingerprint_tells_data_apart_wherever_they_lie(tmp_path):
    one = tree(tmp_path / "a")
    moved = tree(tmp_path / "b")
    mark = inspect("cifar10", root=one).fingerprint
    assert mark == inspect("cifar10", root=moved).fingerprint and len(mark) == 16
    load(spec(fingerprint=mark), seed=0, root=moved)
    (moved / "cifar10" / "test" / "ant" / "0.png").rename(moved / "cifar10" / "test" / "ant" / "9.png")
    renamed = inspect("cifar10", root=moved).fingerprint
    save(moved / "cifar10" / "train" / "ant" / "0.png", size=(99, 99))
    assert len({mark, renamed, inspect("cifar10", root=moved).fingerprint}) == 3


@pytest.mark.skipif("SAR_TEST_DATA" not in os.environ, reason="SAR_TEST_DATA does not name a folder with the real cifar10 tree")
def test_the_real_cifar10():
    wanted = spec(image_size=32, train_size=500, test_size=1000)
    train, test = load(wanted, seed=0, root=Path(os.environ["SAR_TEST_DATA"]))
    assert train.labels.bincount().tolist() == [50] * 10 and test.labels.bincount().tolist() == [100] * 10
    assert 100 < train.pixels.float().mean() < 140 and test.classes[0] == "airplane"


def test_sets_are_found_and_identified_without_torch(tmp_path):
    """A table that is answered from the store need not wait for torch, whatever its data."""
    tree(tmp_path, "mine")
    program = (
        "import pathlib, sys; from sarlib import data; root = pathlib.Path(sys.argv[1]);"
        "print(*data.discover(root), *data.inspect('mine', root=root)[:3],"
        "*{'torch', 'torchvision', 'timm', 'PIL', 'scipy'} & set(sys.modules))"
    )
    here = os.environ | {"PYTHONPATH": str(Path(data.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True, env=here)
    assert done.stdout.split() == ["mine", "18", "12", inspect("mine", root=tmp_path).fingerprint]


def test_imagenette_as_torchvision_leaves_it_is_imagenette(tmp_path, monkeypatch):
    """Its folder has another name; without it torchvision downloads it, once for both splits."""
    fetched = []

    def download(found):
        fetched.append(found._size_root)
        for split in ("train", "val"):
            for kind in ("n01440764", "n02102040"):
                save(tmp_path / "imagenette2-160" / split / kind / "0.JPEG")

    monkeypatch.setattr(datasets.Imagenette, "_download", download)
    train, test = load(spec("imagenette"), seed=0, root=tmp_path)
    assert fetched == [tmp_path / "imagenette2-160"]
    assert train.classes == ("n01440764", "n02102040") and train.labels.tolist() == test.labels.tolist() == [0, 1]
    assert discover(tmp_path) == ("imagenette",)
    load(spec("imagenette"), seed=0, root=tmp_path)
    assert len(fetched) == 1
    mark = inspect("imagenette", root=tmp_path).fingerprint
    (tmp_path / "imagenette2-160").rename(tmp_path / "imagenette")
    assert discover(tmp_path) == ("imagenette",) and inspect("imagenette", root=tmp_path).fingerprint == mark


def test_imagenette_that_arrives_incomplete_is_told_as_a_tree_is(tmp_path, monkeypatch):
    """It is there: nothing is downloaded once more, and the error is not about that."""
    fetched = []

    def download(found):
        fetched.append(found._size_root)
        for split, kinds in (("train", ("n01440764", "n02102040")), ("val", ("n01440764",))):
            for kind in kinds:
                save(tmp_path / "imagenette2-160" / split / kind / "0.JPEG")

    monkeypatch.setattr(datasets.Imagenette, "_download", download)
    with pytest.raises(ConfigError, match="differ in their classes: n02102040 in only one$"):
        load(spec("imagenette"), seed=0, root=tmp_path)
    (tmp_path / "imagenette2-160" / "val").rename(tmp_path / "imagenette2-160" / "elsewhere")
    with pytest.raises(ConfigError, match="has no folders of training and test images, it holds elsewhere, train: exp"):
        load(spec("imagenette"), seed=0, root=tmp_path)
    assert len(fetched) == 1


def test_a_domain_of_pacs_that_is_not_there_says_how_it_must_lie(tmp_path):
    tree(tmp_path)
    with pytest.raises(ConfigError, match=r"DATA/pacs-cartoon/train/<class>/\*.jpg and .* without a split: make one"):
        load(spec("pacs-cartoon"), seed=0, root=tmp_path)


def test_crops_may_come_from_the_photograph_instead_of_the_decoded_square(tmp_path):
    """Test images are decoded all the same; the crops of a photograph with fine detail are sharper."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for kind in ("a", "b"):
            folder = tmp_path / "detailed" / split / kind
            folder.mkdir(parents=True)
            Image.fromarray(generator.integers(0, 256, (96, 128, 3), dtype=np.uint8)).save(folder / "0.png")
    square, photograph = (Data(name="detailed", image_size=32, crop_from=source) for source in ("square", "photograph"))
    assert Data(name="detailed", image_size=32) == square, "so that keys of earlier results hold"
    sharpness = {}
    for declared in (square, photograph):
        train, test = load(declared, seed=0, root=tmp_path)
        assert (train.files is None) == (declared == square) and test.files is None
        settings = {"batch_size": 2, "image_size": 32, "seed": 0, "device": "cpu"}
        batches = TrainBatches(train, augmentation=Augmentation(crop="resized", crop_scale=(0.08, 0.3)), **settings)
        images = torch.cat([batch.images for epoch in range(8) for batch in batches.epoch(epoch)])
        sharpness[declared.crop_from] = images.diff(dim=-1).abs().mean().item()
    assert sharpness["photograph"] > 1.5 * sharpness["square"]
    with pytest.raises(ConfigError, match="unknown crop_from 'centre'; choose from square, photograph"):
        Data(name="detailed", image_size=32, crop_from="centre")
