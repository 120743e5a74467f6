"""Copies a notebook from stdin to stdout without outputs and execution counts, as it is committed: a clean filter for git.

`git config filter.outputs.clean "python3 book/without_outputs.py"` turns it on. Needs nothing but Python.
"""

from __future__ import annotations

import json
import sys


def stripped(text: str) -> str:
    """The notebook's text without what running it adds. What is no notebook stays as it is."""
    try:
        notebook = json.loads(text)
        cells = notebook["cells"]
    except (ValueError, KeyError, TypeError):
        return text
    for cell in cells:
        cell.get("metadata", {}).pop("execution", None)
        if cell.get("cell_type") == "code":
            cell["outputs"], cell["execution_count"] = [], None
    notebook.get("metadata", {}).pop("widgets", None)
    language = notebook.get("metadata", {}).get("language_info", {})
    for name in set(language) - {"name"}:  # the version of whoever ran it
        del language[name]
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdin.reconfigure(encoding="utf-8", newline="")
    sys.stdout.reconfigure(encoding="utf-8", newline="")
    sys.stdout.write(stripped(sys.stdin.read()))
