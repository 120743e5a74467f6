"""Where a number came from: commit, sources, versions, device."""

from __future__ import annotations

import functools
import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PACKAGE = Path(__file__).resolve().parents[1]
LIBRARIES = ("torch", "torchvision", "timm", "numpy", "scipy", "pandas")
#: What decides the numbers of a declared run.
SOURCES = ("entropy*", "last_block", "scores", "regularizers", "models/*", "tasks/*", "trainer/*", "data/*")


def provenance(device: torch.device) -> dict[str, Any]:
    """Commit (and whether the tree had changes), a digest of the sources, library versions and the device by name."""
    import torch

    versions = {"python": platform.python_version(), **{name: metadata.version(name) for name in LIBRARIES}}
    what = {"sources": sources(PACKAGE), "versions": versions, "device": device_name(device)}
    return commit(PACKAGE) | what | {"threads": torch.get_num_threads()}


def device_name(device: torch.device) -> str:
    """What a reader calls the device: the GPU's product name, or the processor's."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"CPU {names[0] if names else platform.processor() or platform.machine()}"


@functools.cache
def sources(package: Path) -> str:
    """12 hexadecimal digits that change with the text, comments included, of the sources that decide the numbers of a run."""
    digest = hashlib.sha256()
    for file in sorted(file for pattern in SOURCES for file in package.glob(f"{pattern}.py")):
        digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


@functools.cache
def commit(package: Path) -> dict[str, Any]:
    """The commit of the checkout that `package` is in, and whether the package has changes: nothing else can change a number.

    None and None for any other copy, such as one that lies within a repository of something else.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", package, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    try:
        top, head = git("rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top).resolve() == package.resolve().parent and git("ls-files", "__init__.py"):
            return {"commit": head, "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.CalledProcessError):
        pass
    return {"commit": None, "dirty": None}
