"""What a training costs: floating point operations that it executes, and the share of the device's peak that it reaches."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from sarlib import tasks
from sarlib.run import Run

#: Dense bfloat16 tensor-core peak in TFLOP/s, from the makers' data sheets, by the first name that a device's name contains.
PEAK_TFLOPS = {"H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362, "A10": 125, "RTX 4090": 165, "V100": 125}


def cost(run: Run, *, classes: int, images_per_second: float, device: torch.device, processes: int) -> dict[str, float]:
    """flops_per_image, and on a device whose peak is known mfu: executed FLOP/s over the peak of all devices (0 to 1)."""
    flops = flops_per_image(run, classes=classes)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = next((1e12 * peak for product, peak in PEAK_TFLOPS.items() if product in name), None)
    return {"flops_per_image": flops} | ({"mfu": flops * images_per_second / (peak * processes)} if peak else {})


def flops_per_image(run: Run, *, classes: int) -> float:
    """FLOPs of one image's forward and backward pass as they are executed: the last block for the class token alone where that
    is how it runs.

    Two operations a multiply-add, matrix products and convolutions only, as torch's FlopCounterMode counts. The entropy's own
    work is too small beside these to matter. Counted on two random images on the CPU; the global random state stays as it is.
    """
    images = 2  # batch norms want more than one
    with torch.random.fork_rng(devices=[]), FlopCounterMode(display=False) as counter:
        task = tasks.create(run, classes)
        task(*task.example_batch(images, run.data.image_size)).sum().backward()
    return counter.get_total_flops() / images
