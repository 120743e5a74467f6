"""Prints the book: `python book/pdf.py` writes book/_build/spatial-entropy.pdf, all chapters in one, with a Chromium.

The chapters are built as one page, which the browser prints with the style sheet for paper: without what can be touched, its
figures and tables in place of it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from build import STAGE, build
from stage import stage

OUT = STAGE.parent / "_build" / "spatial-entropy.pdf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
#: Without a screen, as any user, and with every other machine out of reach.
OFFLINE = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
WAIT = 120_000  # milliseconds of the page's own clock, in which MathJax sets the equations


def browser() -> str | None:
    """The path of a Chromium, or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def print_page(page: Path, out: Path) -> None:
    """`page`, an HTML file, as a PDF. `RuntimeError` if the browser leaves none."""
    with tempfile.TemporaryDirectory(prefix="sarlib-browser-", ignore_cleanup_errors=True) as profile:
        said = subprocess.run(
            [browser(), *OFFLINE, f"--user-data-dir={profile}", f"--virtual-time-budget={WAIT}", "--no-pdf-header-footer"]
            + [f"--print-to-pdf={out}", page.as_uri()],
            capture_output=True,
            text=True,
            check=False,
        )
    if not out.is_file():
        raise RuntimeError(f"the browser printed nothing: {said.stderr.strip()[-500:]}")


def main() -> int:
    if browser() is None:
        print(f"the book is printed by a browser: install one of {', '.join(BROWSERS)}, or print its pages from your own")
        return 2
    from sarlib.experiments import runs_folder

    stage(STAGE, runs=runs_folder())
    with tempfile.TemporaryDirectory(prefix="sarlib-pdf-") as folder:
        code = build(STAGE, Path(folder), builder="singlehtml")
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.unlink(missing_ok=True)
        print_page(Path(folder) / "_build" / "singlehtml" / "index.html", OUT)
    print(f"book/_build/{OUT.name}{' was printed with warnings' if code else ''}")
    return code


if __name__ == "__main__":
    sys.exit(main())
