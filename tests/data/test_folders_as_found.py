"""Image folders as people have them: other names, nested folders, what systems leave behind, odd names and pictures."""

import os
import shutil
import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import functional as V

from sarlib.config import ConfigError, Data
from sarlib.data import cache, discover, folders, inspect, load, summary
from sarlib.data.images import decode, to_bytes


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SAR_CACHE", str(tmp_path_factory.mktemp("cache")))


def save(path, value=0):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Image.new("RGB", (8, 8), (value % 256, 128, 0)).save(path)


def tree(root, name="mine", *, train="train", test="test", classes=("ant", "bee")):
    for split, count in ((train, 3), (test, 2)):
        for label, kind in enumerate(classes):
            for i in range(count):
                save(root / name / split / kind / f"{i}.png", value=100 * (split != train) + 10 * label + i)
    return root


def read(root, name="mine"):
    return load(Data(name=name, image_size=8), seed=0, root=root)


def refused(call, *parts):
    """The message of the `ConfigError` of `call`: one line that names all `parts`."""
    with pytest.raises(ConfigError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message and all(part in message for part in parts), message


def same_as_torchvision(root, *, train="train", test="test", name="mine"):
    for images, split in zip(read(root, name), (train, test), strict=True):
        theirs = ImageFolder(root / name / split)
        assert list(images.classes) == theirs.classes and images.labels.tolist() == theirs.targets
        assert torch.equal(images.pixels, torch.stack([to_bytes(picture) for picture, _ in theirs]))
    return len(theirs)


@pytest.mark.parametrize(
    "train, test", [("train", "valid"), ("Train", "Test"), ("training", "validation"), ("TRAIN", "Val"), ("train", "testing")]
)
def test_the_two_folders_may_have_any_usual_name(tmp_path, train, test):
    tree(tmp_path, train=train, test=test)
    assert discover(tmp_path) == ("mine",) and inspect("mine", root=tmp_path)[:2] == (6, 4)
    assert same_as_torchvision(tmp_path, train=train, test=test) == 4


def test_the_test_folder_wins_over_one_for_validation_and_small_letters_over_capitals(tmp_path):
    tree(tmp_path)
    tree(tmp_path, train="Train", test="val", classes=("fly", "moth", "wasp"))
    same_as_torchvision(tmp_path)


@pytest.mark.parametrize("inner", ["birds/images/0.png", "birds/train/ant/0.png", "0.png"])
def test_a_folder_without_any_set_is_refused_with_what_it_holds(tmp_path, inner):
    save(tmp_path / inner)
    refused(lambda: discover(tmp_path), inner.split("/")[0], "train/<class>", "test/<class>")


def test_sets_as_torchvision_and_domainnet_lay_them_out_are_found(tmp_path):
    """Each under its own name, once, whatever its folder is called; a tree of images in such a folder is a set of that name."""
    last = ("cifar-10-batches-py/batches.meta", "cifar-100-python/meta", "flowers-102/setid.mat")
    for file in (*last, "oxford-iiit-pet/annotations/trainval.txt", "domainnet/clipart_train.txt", "sketch_train.txt"):
        (tmp_path / file).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / file).touch()
    tree(tmp_path, "cifar10")
    tree(tmp_path, "stanford_cars")
    for unfinished in ("imagenette2-160", "stanford-cars"):
        (tmp_path / unfinished).mkdir()
    assert discover(tmp_path) == ("cifar10", "cifar100", "clipart", "flowers102", "oxford-iiit-pet", "sketch", "stanford_cars")


def test_a_misplaced_set_is_refused_with_what_it_holds(tmp_path):
    save(tmp_path / "birds" / "pictures" / "0.png")
    refused(lambda: read(tmp_path, "birds"), "birds is not laid out", "it holds pictures")


def test_images_in_folders_inside_a_class_are_that_classes(tmp_path):
    tree(tmp_path)
    for place in ("ant/2019/spring", "ant/2019", "ant/2019-b", "bee/z"):
        save(tmp_path / "mine" / "train" / place / "x.png", value=200 + len(place))
    assert same_as_torchvision(tmp_path) == 4 and inspect("mine", root=tmp_path)[:2] == (10, 4)


def test_what_systems_and_editors_leave_behind_is_passed_over(tmp_path):
    tree(tmp_path)
    before = inspect("mine", root=tmp_path)
    for split in ("train", "test"):
        for place in (tmp_path / "mine" / split / "ant", tmp_path / "mine" / split, tmp_path / "mine", tmp_path):
            for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
                (place / name).write_bytes(b"\0\5\26\7")
            for folder in (".ipynb_checkpoints", "__MACOSX"):
                save(place / folder / "0.png")
    shutil.copytree(tmp_path / "mine", tmp_path / "__MACOSX" / "mine")
    shutil.copytree(tmp_path / "mine" / "train", tmp_path / "__MACOSX" / "train")
    shutil.copytree(tmp_path / "mine" / "test", tmp_path / "__MACOSX" / "test")
    (tmp_path / "lost+found").mkdir()
    assert discover(tmp_path) == ("mine",)
    assert inspect("mine", root=tmp_path) == before and before.fingerprint
    assert [len(images) for images in read(tmp_path)] == [6, 4]
    assert before.ignored == ()


def test_other_files_are_counted_and_said(tmp_path):
    tree(tree(tmp_path), "others", test="val", classes=("ant", "bee", "cat"))
    Image.new("P", (8, 8)).save(tmp_path / "mine" / "train" / "ant" / "moving.GIF")
    Image.new("P", (8, 8)).save(tmp_path / "mine" / "test" / "bee" / "moving.gif")
    save(tmp_path / "mine" / "train" / "nobody.png")
    (tmp_path / "mine" / "test" / "bee" / "README").write_text("")
    assert same_as_torchvision(tmp_path) == 4
    assert summary({name: inspect(name, root=tmp_path) for name in ("others", "mine")}) == (
        "mine: 2 classes, 6 training and 4 test images, files ignored: 2 .gif, 1 .png, 1 without ending; "
        "others: 3 classes, 9 training and 6 test images, files ignored: none"
    )


def test_image_names_end_as_torchvisions_do():
    from torchvision.datasets.folder import IMG_EXTENSIONS

    assert set(folders.ENDINGS) == set(IMG_EXTENSIONS)


def test_names_that_are_not_utf8(tmp_path):
    tree(tmp_path)
    before = inspect("mine", root=tmp_path).fingerprint
    for split in ("train", "test"):
        os.rename(tmp_path / "mine" / split / "ant", os.fsencode(tmp_path / "mine" / split) + b"/ant\xff")
        save(os.fsdecode(os.fsencode(tmp_path / "mine" / split) + b"/bee/caf\xe9.png"), value=77)
    assert same_as_torchvision(tmp_path) == 5 and inspect("mine", root=tmp_path).fingerprint != before
    os.rename(tmp_path / "mine", os.fsencode(tmp_path) + b"/m\xfcnster")
    refused(lambda: discover(tmp_path), "rename", "m\\udcfcnster")


def test_lists_name_files_that_are_not_utf8(tmp_path):
    """DomainNet's are read as the names of the files are, whatever the locale."""
    for split in ("train", "test"):
        lines = [f"clipart/{kind}/caf\udce9_{split}.png {label}" for label, kind in enumerate(("ant", "bee"))]
        for line in lines:
            save(tmp_path / line.rpartition(" ")[0], value=len(split))
        (tmp_path / f"clipart_{split}.txt").write_bytes(os.fsencode("\n".join(lines)))
    train, test = read(tmp_path, "clipart")
    assert train.classes == ("ant", "bee") and len(train) == len(test) == 2


def test_unicode_normal_forms_of_one_name_are_one_class(tmp_path):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    tree(tmp_path, classes=("bar", composed))
    os.rename(tmp_path / "mine" / "test" / composed, tmp_path / "mine" / "test" / apart)
    train, test = read(tmp_path)
    assert train.classes == test.classes == ("bar", composed) and test.labels.tolist() == [0, 0, 1, 1]
    assert test.pixels[:, 0, 0, 0].tolist() == [100, 101, 110, 111]
    save(tmp_path / "mine" / "test" / composed / "0.png")
    refused(lambda: read(tmp_path), "caf", "twice", "normal forms")


def test_what_no_table_can_use_is_refused(tmp_path):
    tree(tmp_path, "one", classes=("ant",))
    refused(lambda: read(tmp_path, "one"), "one class alone, ant", "two or more")
    for name in ("a;b", "digits", "shapes-object"):
        tree(tmp_path / name, name)
        refused(lambda name=name: discover(tmp_path / name), "rename", name)


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    tree(tmp_path)
    scandir, secret = os.scandir, str(tmp_path / "mine" / "train" / "ant")

    def denied(place):
        if str(place) == secret:
            raise PermissionError(13, "Permission denied", secret)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", denied)
    refused(lambda: read(tmp_path), "cannot read the folder", "train/ant", "Permission denied")
    secret = str(tmp_path / "mine")
    refused(lambda: discover(tmp_path), "cannot read the folder", "mine", "Permission denied")


@pytest.mark.parametrize("dtype, name", [("uint16", "a.png"), ("<u2", "a.tif"), (">u2", "b.tif")])
def test_grey_of_16_bits_is_scaled(tmp_path, dtype, name):
    grey = np.random.default_rng(0).integers(0, 256, (12, 9), dtype=np.uint8)
    Image.fromarray(grey.astype(dtype) * 257).save(tmp_path / name)
    Image.fromarray(grey).save(tmp_path / "plain.png")
    assert np.array_equal(np.asarray(decode(tmp_path / name)), np.asarray(decode(tmp_path / "plain.png")))
    half = Image.fromarray(np.full((4, 4), 2**15, dtype=dtype))
    half.save(tmp_path / name)
    assert set(np.asarray(decode(tmp_path / name)).flat) == {128}


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_of_32_bits_are_refused(tmp_path, dtype):
    Image.fromarray(np.full((4, 4), 300, dtype=dtype)).save(tmp_path / "deep.tif")
    refused(lambda: decode(tmp_path / "deep.tif"), "deep.tif", "32 bits")


def test_the_orientation_in_exif_is_ignored_as_by_torchvision(tmp_path):
    """torchvision's ImageFolder shows the pixels as they are stored; so do we, and numbers stay comparable."""
    tree(tmp_path)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    for split in ("train", "test"):
        picture.save(tmp_path / "mine" / split / "ant" / "a.jpg", exif=exif, quality=95)
    same_as_torchvision(tmp_path)
    shown, turned = decode(tmp_path / "mine" / "test" / "ant" / "a.jpg"), V.rotate(picture, -90)
    assert abs(np.asarray(shown).astype(int) - np.asarray(picture)).mean() < abs(np.asarray(shown).astype(int) - turned).mean()


def test_a_fingerprint_does_not_depend_on_the_encoding_of_the_file_system(tmp_path):
    tree(tmp_path, classes=("ant", "größe"))
    split, _ = folders.read(tmp_path, "mine")
    expected = "".join(f"{file.parent.name}/{file.name} {file.stat().st_size}\n" for file in split.files).encode()
    assert cache.digest(split, split) == cache._hashed(2 * (repr(split.classes).encode() + split.labels.tobytes() + expected))
