"""The command line: `python -m sarlib.gpu_check --out results` on a machine with a GPU; the same again goes on where it ended."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path

from sarlib.config import ConfigError
from sarlib.gpu_check import benchmark, environment, feeding, kernel, plan, records, runner, summary, tables, training
from sarlib.gpu_check.parts import Part, Task
from sarlib.machine import at_hand

#: In this order. Seconds that a part wants to begin are what it needs at least to give something, compilation included.
PARTS = (
    Part(name="environment", find=environment.find, always=True),
    Part(name="kernel", find=kernel.find, least=20.0),
    Part(name="benchmark-kernel", find=benchmark.find_kernel, least=40.0),
    Part(name="training", find=training.find, least=100.0),
    Part(name="feeding", find=feeding.find, least=100.0),
    Part(name="benchmark-step", find=benchmark.find_step, least=150.0),
    Part(name="modes", find=training.find_modes, least=150.0),
    Part(name="tables", find=tables.find, least=60.0),
)

#: Settings for debugging that would make other figures than a user gets.
FORCING = ("SAR_ENTROPY", "SAR_COMPILE", "SAR_INPUT", "SAR_PIECES")

_ABOUT = "All that a borrowed GPU is wanted for, in ten minutes; called again it goes on where it ended."


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 if a part failed, 2 for bad input or without a GPU, 130 if interrupted."""
    options = _parser().parse_args(arguments)
    try:
        task = _task(options)
        parts = [dataclasses.replace(part, least=0.0) for part in PARTS] if options.rehearse else PARTS
        outcomes = runner.run(parts, task, seconds=60 * options.minutes)
        summary.write(outcomes, task.folder)
    except (ConfigError, OSError) as error:
        print(f"sarlib: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sarlib: interrupted; finished parts and runs are kept", file=sys.stderr)
        return 130
    print(f"\n{summary.text(outcomes)}\n\nwritten: {task.folder}")
    return 1 if any(outcome["status"] == records.FAILED for outcome in outcomes) else 0


def _task(options: argparse.Namespace) -> Task:
    if options.minutes <= 0:
        raise ConfigError(f"--minutes must be above 0, got {options.minutes:g}")
    if forced := [name for name in FORCING if os.environ.get(name)]:
        raise ConfigError(f"{', '.join(forced)} would make other figures than a user gets: unset it")
    machine = at_hand(device="cpu" if options.rehearse else options.device, workers=1)
    if machine.device == "cpu" and not options.rehearse:
        raise ConfigError(
            "the check needs a GPU, and there is none that torch can use; --rehearse tries it at small sizes without one"
        )
    data = None if options.data is None else options.data.expanduser().resolve()
    if data is not None and not data.is_dir():
        raise ConfigError(f"--data {data}: there is no such folder")
    folder = options.out.expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder} ({error.strerror}): name another with --out") from error
    threads = 1 if options.rehearse else machine.threads
    chosen = plan.rehearsal() if options.rehearse else plan.full()
    return Task(folder=folder, device=machine.device, threads=threads, code=records.code(), plan=chosen, data=data)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sarlib.gpu_check", description=_ABOUT)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where results go, and those of an earlier call are"
    )
    parser.add_argument("--minutes", type=float, default=9.0, metavar="M", help="time for all of it (default: 9)")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of real image sets, such as DIR/cifar10/{train,test}/<class>/*"
    )
    parser.add_argument("--device", default="auto", help="auto, cuda or cuda:N (default: auto)")
    parser.add_argument("--rehearse", action="store_true", help="try every part on the CPU, at sizes that mean nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
