"""The GPU kernel without a GPU: interpreted against the float64 reference, and compiled ahead of time for three architectures.

Triton decides at its import whether it interprets, so the kernel runs in a process of its own: this file, called as a script.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from adversarial_maps import adversarial, degenerate, random_maps
from entropy_reference import assert_agree

from sarlib.config import ConfigError
from sarlib.entropy import entropy_and_gradient, spatial_entropy

triton = pytest.importorskip("triton", reason="Triton has no build for this platform: the kernel is not used here either")

SMALL = {(7, 7): 70_000, (14, 14): 30_000, (16, 16): 2_000, (5, 11): 2_000, (16, 3): 1_000, (2, 2): 500, (1, 9): 500}
LARGE = [(17, 17), (28, 28), (9, 40), (33, 20)]


def small_maps(h: int, w: int) -> np.ndarray:
    odd = np.stack(list(degenerate(h, w).values()))
    return np.concatenate([random_maps(SMALL[h, w], h, w), adversarial(h, w), odd])


def large_maps(h: int, w: int) -> np.ndarray:
    """The spiral, the snake, the comb and a smooth map: few, as programs of one map are interpreted one by one."""
    return np.concatenate([adversarial(h, w)[:3], random_maps(2, h, w)[1:]])


def broken_maps(h: int, w: int) -> np.ndarray:
    maps = random_maps(4, h, w)
    maps[0, 1, 1], maps[1, 0, 2], maps[2, 2, 0] = np.nan, np.inf, -np.inf
    return maps


def interpret(results: Path) -> None:
    """Calculate every case with the interpreted kernel and write entropies and gradients. Runs in the other process."""
    from sarlib import entropy_triton

    found = {}

    def keep(name: str, maps: np.ndarray | torch.Tensor) -> None:
        found[f"{name} entropy"], found[f"{name} gradient"] = map(np.asarray, entropy_and_gradient(torch.as_tensor(maps)))

    keep("as launched", small_maps(14, 14)[-60:])
    for h, w in LARGE:
        keep(f"large {h} x {w}", large_maps(h, w))
    keep("broken", broken_maps(7, 7))
    keep("broken, large", broken_maps(17, 20))
    keep("float64", random_maps(16, 7, 7).astype(np.float64))
    keep("bfloat16", torch.from_numpy(random_maps(16, 7, 7)).bfloat16())
    keep("strided", torch.from_numpy(random_maps(30, 6, 5)).transpose(1, 2)[::2])
    keep("empty", np.zeros((0, 7, 7), np.float32))
    attention = torch.from_numpy(random_maps(4, 1, 50)).reshape(2, 2, 50).requires_grad_()
    spatial_entropy(attention[:, :, 1:].unflatten(-1, (7, 7))).backward()
    found["attention"] = attention.grad.numpy()

    entropy_triton.LANES = 2**16  # as if warps were this wide: the same arithmetic on more maps a program, fewer to interpret
    for h, w in SMALL:
        keep(f"small {h} x {w}", small_maps(h, w))
    np.savez(results, **found)


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    results = tmp_path_factory.mktemp("interpreted") / "results.npz"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "SAR_ENTROPY": "triton", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore::RuntimeWarning", __file__, str(results)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return dict(np.load(results))


def outcome(interpreted: dict[str, np.ndarray], name: str) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(interpreted[f"{name} entropy"]), torch.from_numpy(interpreted[f"{name} gradient"])


@pytest.mark.parametrize("h, w", SMALL)
def test_small_grids_agree_with_the_float64_reference(interpreted, h, w):
    maps = torch.from_numpy(small_maps(h, w))
    entropy, gradient = outcome(interpreted, f"small {h} x {w}")
    assert_agree(maps, entropy, gradient)
    odd = len(degenerate(h, w))
    assert not entropy[-odd:].any() and not gradient[-odd:].any()


@pytest.mark.parametrize("h, w", LARGE)
def test_large_grids_agree_with_the_float64_reference(interpreted, h, w):
    assert_agree(torch.from_numpy(large_maps(h, w)), *outcome(interpreted, f"large {h} x {w}"))


def test_the_number_of_maps_a_program_changes_no_bit(interpreted):
    entropy, gradient = outcome(interpreted, "small 14 x 14")
    assert torch.equal(outcome(interpreted, "as launched")[0], entropy[-60:])
    assert torch.equal(outcome(interpreted, "as launched")[1], gradient[-60:])


@pytest.mark.parametrize("name, h, w", [("broken", 7, 7), ("broken, large", 17, 20)])
def test_a_value_that_is_not_finite_gives_nan_and_no_hang(interpreted, name, h, w):
    entropy, gradient = outcome(interpreted, name)
    expected = torch.tensor([True, True, True, False])
    assert torch.equal(entropy.isnan(), expected)
    assert torch.equal(gradient.isnan().all(2).all(1), expected)
    assert_agree(torch.from_numpy(broken_maps(h, w)[3:]), entropy[3:], gradient[3:])


def test_types_and_memory_layouts(interpreted):
    maps = torch.from_numpy(random_maps(16, 7, 7))
    entropy, gradient = outcome(interpreted, "float64")
    exact, slope = entropy_and_gradient(maps.double())
    assert entropy.dtype == gradient.dtype == torch.float64
    torch.testing.assert_close((entropy, gradient), (exact, slope), atol=1e-13, rtol=1e-12)
    entropy, gradient = outcome(interpreted, "bfloat16")
    assert entropy.dtype == gradient.dtype == torch.float32
    assert_agree(maps.bfloat16(), entropy, gradient)
    assert_agree(torch.from_numpy(random_maps(30, 6, 5)).transpose(1, 2)[::2], *outcome(interpreted, "strided"))
    assert interpreted["empty entropy"].shape == (0,) and interpreted["empty gradient"].shape == (0, 7, 7)


def test_the_gradient_reaches_a_slice_of_the_attention(interpreted):
    attention = torch.from_numpy(random_maps(4, 1, 50)).reshape(2, 2, 50).requires_grad_()
    spatial_entropy(attention[:, :, 1:].unflatten(-1, (7, 7))).backward()
    torch.testing.assert_close(torch.from_numpy(interpreted["attention"]), attention.grad, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("h, w", [(7, 7), (14, 14), (16, 16), (64, 64)])
@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_it_compiles_ahead_of_time_without_spills(architecture, h, w, tmp_path, monkeypatch):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from sarlib import entropy_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel, constants, _, warps = entropy_triton.plan(h, w, torch.float32, faintest=1024)
    signature = {"S": "*fp32", "G": "*fp32", "H": "*fp32", "n": "i32"}
    signature |= {f"stride_{axis}": "i32" for axis in ("map", "row", "column")} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": warps})

    binary = tmp_path / "kernel.cubin"
    binary.write_bytes(compiled.asm["cubin"])
    cuobjdump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    usage = subprocess.run([cuobjdump, "--dump-resource-usage", binary], capture_output=True, text=True, check=True).stdout
    used = {what: int(amount) for what, amount in re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", usage)}
    assert used["STACK"] == used["LOCAL"] == 0, f"spilled: {used}"
    instructions = compiled.asm["ptx"]
    assert not re.search(r"\b(atom|red)\.", instructions)
    if max(h, w) <= entropy_triton.LARGEST_SMALL_GRID:
        assert used["SHARED"] == 0 and "bar.sync" not in instructions


def test_forcing_the_kernel_where_it_cannot_run_is_one_clear_line(monkeypatch):
    monkeypatch.setenv("SAR_ENTROPY", "triton")
    with pytest.raises(ConfigError, match="needs tensors on a CUDA device"):
        spatial_entropy(torch.randn(2, 7, 7))
    with pytest.raises(ConfigError, match="grids up to 64 tokens a side, got 7 x 65"):
        spatial_entropy(torch.randn(2, 7, 65))


if __name__ == "__main__":
    interpret(Path(sys.argv[1]))
