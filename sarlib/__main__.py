"""The command line: `python -m sarlib table2 --preset tiny` runs a table and prints it; no notebook, no Jupyter."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from sarlib import data, experiments
from sarlib.config import ConfigError, TrainingError
from sarlib.runner.machine import check
from sarlib.trainer.distributed import leads
from sarlib.trainer.interruption import Interrupted

_PRESETS = ". ".join(f"{name}: {preset.about}" for name, preset in experiments.PRESETS.items())
#: How a table is run, from here or in a notebook's cell of parameters: each name is an option of the command line, an argument
#: of `experiments.declare` (SIZE) or of `experiments.run` (MACHINE), and in capitals a variable of the Makefile.
SIZE: dict[str, dict[str, Any]] = {
    "preset": {"default": "laptop", "help": f"its size (default: laptop). {_PRESETS}"},
    "data": {
        "metavar": "DIR",
        "help": "folder of real image sets, DIR/<name>/{train,test}/<class>/* or torchvision's",
    },
    "datasets": {"metavar": "A;B", "help": "only these data sets of the table"},
    "seeds": {"type": int, "metavar": "N", "help": "number of seeds (default: the preset's)"},
}
MACHINE: dict[str, dict[str, Any]] = {
    "workers": {"type": int, "metavar": "N", "help": "runs side by side (default: one a core; one on a GPU)"},
    "device": {"default": "auto", "help": "auto, cpu, cuda or cuda:N (default: auto)"},
    "gpus": {"type": int, "metavar": "N", "help": "GPUs (on a CPU: processes) that train one run together (default: 1)"},
    "cluster": {"metavar": "FILE", "help": "make every run a job of the cluster that this YAML file describes"},
}
ACTIONS = {
    "check": "only check the arguments, and say what the table's sets below --data hold",
    "show": "print the results that are there; train nothing",
    "keep-as-reference": "copy the results to runs/reference/",
}


class Parser(argparse.ArgumentParser):
    """Of the command line. Errors are one line, as all others here."""

    def __init__(self) -> None:
        super().__init__(prog="python -m sarlib", description="Run a table of the paper and print it.")
        self.add_argument("table", help=f"which table: {', '.join(experiments.TABLES)}")
        for name, option in (SIZE | MACHINE).items():
            self.add_argument(f"--{name}", **option)
        action = self.add_mutually_exclusive_group()
        for name, text in ACTIONS.items():
            action.add_argument(f"--{name}", dest="action", action="store_const", const=name, default="run", help=text)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"sarlib: {message} (see python -m sarlib --help)\n")


def parameters(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """The table's name, and the options of SIZE and MACHINE by name: the parameters of its notebook."""
    options = vars(Parser().parse_args(arguments))
    return options["table"], {name: options[name] for name in SIZE | MACHINE}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 for bad input and 1 for a failed training, each with one line."""
    options = vars(Parser().parse_args(arguments))
    if hasattr(sys.stdout, "reconfigure"):  # whose encoding may have no ±
        sys.stdout.reconfigure(errors="replace")
    try:
        _act(**options)
        return 0
    except (ConfigError, TrainingError, Interrupted) as error:
        print(f"sarlib: {error}", file=sys.stderr)
        # What was interrupted is 0, so that a scheduler queues it again instead of calling it failed.
        return 2 if isinstance(error, ConfigError) else 1 if isinstance(error, TrainingError) else 0
    except KeyboardInterrupt:
        print("sarlib: interrupted; finished runs are kept and the others resume", file=sys.stderr)
        return 130


def _act(*, table: str, action: str, **options: Any) -> None:
    """Whatever the action, all arguments are checked first."""
    machine = {name: options.pop(name) for name in MACHINE}
    experiment = experiments.declare(table, **options)
    check(**machine)
    experiments.open_store().require_writable()
    if experiment.data_root is not None and action in ("check", "run") and leads():
        found = data.summary(experiment.found) or f"no set below {experiment.data_root} joins {table}"
        print(found, file=sys.stdout if action == "check" else sys.stderr)
    if action == "keep-as-reference":
        experiments.keep_as_reference(experiment)
        print(f"kept as reference: {experiments.reference_path(experiment)}")
    elif action != "check":
        from sarlib import report

        path = experiments.csv_path(experiment)
        results = experiments.run(experiment, **machine) if action == "run" else report.read_csv(path)
        if leads():
            print(report.text(results, experiment, encoding=sys.stdout.encoding))


if __name__ == "__main__":
    sys.exit(main())
