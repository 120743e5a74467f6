"""The command line: `python -m sarlib table2 --preset tiny` runs a table and prints it; no notebook, no Jupyter."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from sarlib import experiments, report
from sarlib.config import ConfigError, TrainingError
from sarlib.experiments.csv import read_csv
from sarlib.runner.machine import check, leads
from sarlib.trainer.interruption import Interrupted


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 for bad input and 1 for a training that failed, each told in one line."""
    options = _parser().parse_args(arguments)
    try:
        experiment = experiments.declare(
            options.table, preset=options.preset, data=options.data, datasets=options.datasets, seeds=options.seeds
        )
        check(device=options.device, workers=options.workers, gpus=options.gpus, cluster=options.cluster)
        experiments.open_store().require_writable()
        options.action(experiment, options)
        return 0
    except ConfigError as error:
        print(f"sarlib: {error}", file=sys.stderr)
        return 2
    except TrainingError as error:
        print(f"sarlib: {error}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(f"sarlib: {stop}", file=sys.stderr)
        return 0  # so that a scheduler queues it again instead of calling it failed
    except KeyboardInterrupt:
        print("sarlib: interrupted; finished runs are kept and the others resume", file=sys.stderr)
        return 130


def _run(experiment: experiments.Experiment, options: argparse.Namespace) -> None:
    results = experiments.run(
        experiment, workers=options.workers, device=options.device, gpus=options.gpus, cluster=options.cluster
    )
    if leads():
        print(report.text(results, experiment))


def _check(experiment: experiments.Experiment, options: argparse.Namespace) -> None:
    """Nothing more: reaching this point means that the arguments are good."""


def _show(experiment: experiments.Experiment, options: argparse.Namespace) -> None:
    print(report.text(read_csv(experiments.csv_path(experiment)), experiment))


def _keep(experiment: experiments.Experiment, options: argparse.Namespace) -> None:
    experiments.keep_as_reference(experiment)
    print(f"kept as reference: {experiments.reference_path(experiment)}")


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, as all others here."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"sarlib: {message} (see python -m sarlib --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m sarlib", description="Run a table of the paper and print it.")
    parser.add_argument("table", help=f"which table: {', '.join(experiments.TABLES)}")
    parser.add_argument("--preset", default="laptop", help=f"its size: {', '.join(experiments.PRESETS)} (default: laptop)")
    parser.add_argument("--data", metavar="DIR", help="folder of real image sets, DIR/<name>/{train,test}/<class>/*")
    parser.add_argument("--datasets", metavar="A;B", help="only these data sets of the table")
    parser.add_argument("--seeds", type=int, metavar="N", help="number of seeds (default: the preset's)")
    parser.add_argument("--workers", type=int, metavar="N", help="runs side by side (default: one a core; one on a GPU)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument(
        "--gpus", type=int, metavar="N", help="GPUs (on a CPU: processes) that train one run together (default: 1)"
    )
    parser.add_argument("--cluster", metavar="FILE", help="make every run a job of the cluster that this YAML file describes")
    action = parser.add_mutually_exclusive_group()
    action.set_defaults(action=_run)
    for flag, function, text in (
        ("--check", _check, "only check the arguments"),
        ("--show", _show, "print the results that are there; train nothing"),
        ("--keep-as-reference", _keep, "copy the results to runs/reference/"),
    ):
        action.add_argument(flag, dest="action", action="store_const", const=function, help=text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
