"""Makes the reference of the public API from signatures and docstrings."""

from __future__ import annotations

import ast
import inspect
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: Module: what of it is public, by the task of a reader. Names with a dot are methods.
PUBLIC = {
    "In your own loop": {"sarlib/plugin.py": ("SAR", "SAR.loss", "SAR.maps", "SAR.remove", "SARTask")},
    "The equations": {
        "sarlib/entropy.py": ("similarity", "excess", "components", "component_counts", "component_probabilities")
        + ("map_entropy", "spatial_entropy", "entropy_and_gradient"),
        "sarlib/last_block.py": ("set_variant", "forward", "Output"),
        "sarlib/tasks/masks.py": ("mass_mask", "jaccard"),
    },
    "Runs": {
        "sarlib/config/images.py": ("Data", "Augmentation"),
        "sarlib/config/network.py": ("Model",),
        "sarlib/config/learning.py": ("Recipe", "Regularizer"),
        "sarlib/run.py": ("Run", "Measurement"),
        "sarlib/regularizers.py": ("create",),
    },
    "To explore": {"sarlib/explore.py": ("train", "load", "changed", "look")},
    "Tables": {"sarlib/experiments/__init__.py": ("declare", "run", "open_store", "runs_folder", "csv_path")},
    "What is made of results": {
        "sarlib/report/tables.py": ("table", "differences", "contrasts", "epochs_to_reach", "text"),
        "sarlib/report/figures.py": ("figure",),
        "sarlib/report/trends.py": ("curves",),
        "sarlib/report/attention.py": ("maps",),
        "sarlib/report/judgement.py": ("verdicts",),
        "sarlib/report/reference.py": ("agreement",),
        "sarlib/experiments/results.py": ("read_csv",),
    },
}


def section() -> str:
    """One heading a task and one a name, with its signature and its docstring."""
    parts = []
    for task, modules in PUBLIC.items():
        parts.append(f"## {task}")
        for path, names in modules.items():
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            parts += [_entry(tree, module, name) for name in names]
    return "\n\n".join(parts)


def _entry(tree: ast.Module, module: str, name: str) -> str:
    node: ast.AST = tree
    for part in name.split("."):
        node = next(one for one in node.body if getattr(one, "name", None) == part)
    text = ast.get_docstring(node) or ""
    return f"### `{name}`\n\n```python\nfrom {module} import {name.split('.')[0]}\n\n{_signature(node)}\n```\n\n{_prose(text)}"


def _signature(node: ast.AST) -> str:
    """The line that defines it, without decorators and body; of a class its fields or the arguments of its `__init__`."""
    if isinstance(node, ast.ClassDef):
        makes = next((one for one in node.body if getattr(one, "name", None) == "__init__"), None)
        if makes:
            return f"{node.name}({_arguments(makes)})"
        fields = [ast.unparse(one) for one in node.body if isinstance(one, ast.AnnAssign)]
        return "\n".join([f"class {node.name}:", *(f"    {field}" for field in fields)])
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({_arguments(node)}){returns}"


def _arguments(node: ast.FunctionDef) -> str:
    return ast.unparse(node.args).removeprefix("self, ").removeprefix("self")


def _prose(docstring: str) -> str:
    """A docstring as Markdown: what is indented or aligned keeps its columns."""
    parts = []
    for paragraph in inspect.cleandoc(docstring).split("\n\n"):
        aligned = any(line.startswith("    ") or "   " in line.strip() for line in paragraph.splitlines())
        parts.append(
            f"```text\n{textwrap.dedent(paragraph)}\n```" if aligned else paragraph.replace("<", "\\<").replace("*", "\\*")
        )
    return "\n\n".join(parts)
