"""Published networks to start from: a file of weights that is known by its checksum, whatever it is called.

It lies below the folder SAR_PUBLISHED, by default `published/` in the folder of real data, or comes from the Hugging Face hub.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sarlib.config import ConfigError, Published

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
#: Under which names authors put the state dict into their file.
WRAPPERS = ("model", "state_dict")


def find(network: Published, *, root: Path | None) -> Path:
    """The file; `root` is the folder of real data sets. `ConfigError` says which file to put where if it cannot be had."""
    folder, files = _files(root)
    if file := _with_checksum(network.sha256, files):
        return file
    try:
        reason, file = "the hub's file has another checksum", _with_checksum(network.sha256, [_download(network.name)])
    except Exception as error:  # whatever the hub's client and its transport raise
        reason = f"the hub cannot be reached: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
    if file:
        return file
    advice = f"put its file with the SHA-256 {network.sha256} there, or name the folder that has it with SAR_PUBLISHED"
    raise ConfigError(f"the weights of {network.name} are not in {folder} ({reason}): {advice}")


def named(name: str, *, root: Path | None) -> Published | None:
    """The network `name` of timm, if there is a file of this name, as in vit_small_patch16_224.dino.safetensors."""
    file = next((file for file in _files(root)[1] if file.stem == name), None)
    return file and Published(name=f"timm/{name}", sha256=_checksum(file))


def weights(network: Published, *, root: Path | None) -> dict[str, Tensor]:
    """The state dict in the file that `find` gives."""
    import torch
    from safetensors.torch import load_file

    file = find(network, root=root)
    held = load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
    return next((held[name] for name in WRAPPERS if name in held), held)


def _files(root: Path | None) -> tuple[Path, list[Path]]:
    """The folder of published networks, and all files of weights in it."""
    folder = Path(os.environ.get("SAR_PUBLISHED") or (root or Path.cwd()) / "published").expanduser()
    return folder, sorted(file for file in folder.rglob("*") if file.suffix in SUFFIXES)


def _with_checksum(sha256: str, files: list[Path]) -> Path | None:
    return next((file for file in files if _checksum(file) == sha256), None)


def _checksum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _download(name: str) -> Path:
    """The weights on the hub, in its client's cache: of a network that timm knows, else of a repository of this name."""
    from huggingface_hub import hf_hub_download
    from timm.models import get_pretrained_cfg

    known = get_pretrained_cfg(name.removeprefix("timm/"))
    return Path(hf_hub_download(known.hf_hub_id if known else name, "model.safetensors"))
