"""Builds the book: `python book/build.py` writes book/_build/html/index.html. Needs no network, and neither do the pages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from execute import ROOT
from stage import stage

STAGE = ROOT / "book" / "_stage"


def build(sources: Path, out: Path, *, builder: str = "html") -> int:
    """Build staged sources into `out`/_build/`builder`; the exit code is not 0 on any warning."""
    shutil.rmtree(out / "_build", ignore_errors=True)  # pages of an earlier table of contents would stay
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    settings = ("-q", "-W", "--keep-going", "--builder", builder, "--path-output", out)
    return subprocess.run([jupyter_book, "build", *settings, sources], check=False).returncode


def main() -> int:
    # Loads torch: not before it is needed.
    from sarlib.experiments import runs_folder

    pages = stage(STAGE, runs=runs_folder())
    code = build(STAGE, STAGE.parent)
    for page in pages:
        print(f"{page.file}: results {page.whose}", *page.warnings)
    print(f"book/_build/html/index.html{' was built with warnings' if code else ''}")
    return code


if __name__ == "__main__":
    sys.exit(main())
