"""Published networks: known by their checksum, wherever and under whatever name they lie, and one line where they
cannot be had."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from measured import measure_all
from safetensors.torch import save_file

from sarlib import models
from sarlib.config import ConfigError, Model, Published
from sarlib.measures.finished import first_images, similarity
from sarlib.run import Measurement, Run
from sarlib.runner import published
from sarlib.runner.machine import Machine
from sarlib.runner.schedule import execute_all
from sarlib.runner.store import Store
from sarlib.trainer import loop as training

NAME = "timm/deit_small_patch16_224"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is fetched from the hub, which cannot be reached."""
    wanted: list[tuple[str, str]] = []

    def unreachable(repository: str, file: str) -> str:
        wanted.append((repository, file))
        raise ConnectionError("no route to host\nand much more")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    return wanted


@pytest.fixture
def state(smallest_run: Run) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return models.create(smallest_run.model, classes=4, image_size=smallest_run.data.image_size).state_dict()


def checked(file: Path) -> Published:
    return Published(name=NAME, sha256=hashlib.sha256(file.read_bytes()).hexdigest())


def test_a_file_is_found_by_its_checksum(
    tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, hub: list
) -> None:
    """Among others, deep in a folder and under another name; with a state dict as it is, or wrapped as authors do."""
    folder = tmp_path / "published" / "networks"
    folder.mkdir(parents=True)
    (folder / "another.safetensors").write_bytes(b"another")
    save_file(state, folder / "mine.safetensors")
    for name, held in (("plain.pth", state), ("deit.pth", {"model": state}), ("moco.pth", {"epoch": 3, "state_dict": state})):
        torch.save(held, folder / name)
    for name in ("mine.safetensors", "plain.pth", "deit.pth", "moco.pth"):
        network = checked(folder / name)
        assert published.find(network, root=tmp_path) == folder / name
        found = published.weights(network, root=tmp_path)
        assert found.keys() == state.keys() and all(torch.equal(found[each], state[each]) for each in state)
    monkeypatch.setenv("SAR_PUBLISHED", str(folder))
    assert published.find(network, root=None) == folder / "moco.pth"
    assert hub == []


def test_the_hub_is_next_and_its_file_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    wanted = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *where: wanted.append(where) or str(file))
    assert published.find(checked(file), root=tmp_path) == file
    assert published.find(dataclasses.replace(checked(file), name="somebody/network"), root=tmp_path) == file
    assert wanted == [("timm/deit_small_patch16_224.fb_in1k", "model.safetensors"), ("somebody/network", "model.safetensors")]
    with pytest.raises(ConfigError, match=f"not in {tmp_path}/published .*another checksum"):
        published.find(Published(name=NAME, sha256="0" * 64), root=tmp_path)


def test_one_line_says_which_file_to_put_where(tmp_path: Path, smallest_run: Run, store: Store, hub: list) -> None:
    """Before anything is trained, a run that could be included."""
    network = Published(name=NAME, sha256="ab" * 32)
    child = dataclasses.replace(smallest_run, pretrained=network)
    with pytest.raises(ConfigError) as error:
        execute_all([smallest_run, child], store=store, root=tmp_path, machine=Machine("cpu", workers=1, threads=1))
    message = str(error.value)
    assert NAME in message and "ab" * 32 in message and f"{tmp_path}/published" in message and "SAR_PUBLISHED" in message
    assert "no route to host" in message and "\n" not in message and store.read(smallest_run) is None and len(hub) == 1


def test_a_run_starts_from_a_published_network(
    tmp_path: Path, smallest_run: Run, store: Store, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "published").mkdir()
    save_file(state, tmp_path / "published" / "mine.safetensors")
    network = checked(tmp_path / "published" / "mine.safetensors")
    child, given = dataclasses.replace(smallest_run, pretrained=network), []
    train = training.train
    monkeypatch.setattr(training, "origin", lambda _: {"grid": smallest_run.grid, "heads": smallest_run.model.heads})
    monkeypatch.setattr(
        training,
        "train",
        lambda run, *, pretrained, **rest: given.append(pretrained) or train(run, pretrained=pretrained, **rest),
    )
    execute_all([child], store=store, root=tmp_path, machine=Machine("cpu", workers=1, threads=1))
    assert given[0].keys() == state.keys() and all(torch.equal(given[0][name], state[name]) for name in state)
    assert child.key != smallest_run.key and store.has_weights(child)


def test_a_published_network_is_measured_as_it_is(tmp_path: Path, smallest_run: Run, hub: list) -> None:
    """Found by timm's name, not trained: its S at its own size is timm's."""
    name = "test_vit.r160_in1k"
    torch.manual_seed(1)
    theirs = timm.create_model(name).eval()
    (tmp_path / "published").mkdir()
    assert published.named(name, root=tmp_path) is None
    save_file(theirs.state_dict(), tmp_path / "published" / f"{name}.safetensors")
    network = published.named(name, root=tmp_path)
    assert network.name == f"timm/{name}" and published.find(network, root=tmp_path).stem == name
    data = dataclasses.replace(smallest_run.data, image_size=160)
    recipe = dataclasses.replace(smallest_run.recipe, epochs=0, evaluations=0)
    vit = Model(patch_size=16, dim=64, depth=6, heads=2, mlp_ratio=3.0)
    run = Run(data=data, model=vit, recipe=recipe, pretrained=network)
    store, machine = Store(tmp_path / "store"), Machine("cpu", workers=1, threads=1)
    heads = Measurement(name="heads", data=data, images=2)
    ((_, found),) = measure_all([(run, heads)], store=store, root=tmp_path, machine=machine).items()
    expected = similarity(theirs, first_images(data, 2), batch_size=2)
    torch.testing.assert_close(torch.tensor(found["arrays"]["similarity"]), expected, rtol=0, atol=6e-5)
    kept = store.weights(run)
    assert all(torch.equal(kept[each], value) for each, value in theirs.state_dict().items() if not each.startswith("head."))
    assert Run.from_dict(run.to_dict()) == run and store.read(run).metrics["images_per_second"] == 0 and hub == []
    with pytest.raises(ConfigError, match="only a published network is measured after 0 epochs"):
        dataclasses.replace(run, pretrained=None)
