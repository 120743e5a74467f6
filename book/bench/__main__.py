"""The command line: `python -m bench --device auto` measures, prints a table and writes runs/bench/<device>.json."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch

from bench import plan, report
from bench.augmentation import measure_augmentation
from bench.device import measure_device
from bench.interleaved import Unequal
from bench.loss import measure_loss
from bench.overhead import measure_overhead
from bench.step import measure_step
from sarlib.config import ConfigError
from sarlib.experiments import runs_folder
from sarlib.runner.machine import check


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 2 for bad input, 1 if two sides do not give equal results."""
    options = _parser().parse_args(arguments)
    try:
        if os.environ.get("SAR_ENTROPY"):
            raise ConfigError("SAR_ENTROPY forces one path of the loss: unset it, the benchmark measures what a user gets")
        machine = check(device=options.device, workers=1).resolved()
        torch.set_num_threads(1 if options.quick else machine.threads)
        outcome = run(torch.device(machine.device), trial=options.quick, compiled=options.compile)
        path = options.out or runs_folder() / "bench" / report.file_name(outcome)
        report.write(outcome, path)
    except ConfigError as error:
        print(f"sarlib: {error}", file=sys.stderr)
        return 2
    except Unequal as error:
        print(f"sarlib: {error}; nothing was written", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sarlib: interrupted; nothing was written", file=sys.stderr)
        return 130
    print(report.text(outcome))
    print(f"\nwritten: {path}")
    return 0


def run(device: torch.device, *, trial: bool = False, compiled: bool = False) -> report.Report:
    """Measure all that `device` has to offer. Raises `Unequal` where two sides of a comparison do not give equal results."""
    chosen = plan.trial(compiled=compiled) if trial else plan.full(device, compiled=compiled)
    parts = [
        measure_loss,
        measure_augmentation,
        measure_step,
        measure_overhead,
        *([measure_device] if device.type == "cuda" else []),
    ]
    skipped = []
    if device.type != "cuda":
        skipped.append("kernel, host synchronisations, CUDA graphs, memory: they need a GPU (--device cuda)")
    if True not in chosen.compiled:
        skipped.append("compiled training steps: on a CPU only with --compile")
    measurements, facts, start = [], [], time.monotonic()
    for part in parts:
        print(f"{part.__name__.replace('_', ' ')} ...", file=sys.stderr, flush=True)
        measured, found = part(chosen, device)
        measurements += measured
        facts += found
    seconds = time.monotonic() - start
    return report.assemble(measurements, facts, device=device, seconds=seconds, skipped=skipped, trial=trial)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure what the method costs.")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the report goes (default: runs/bench/<device>.json)")
    parser.add_argument("--quick", action="store_true", help="a trial in seconds, at sizes that mean nothing")
    parser.add_argument("--compile", action="store_true", help="torch.compile the training steps too (always done on a GPU)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
