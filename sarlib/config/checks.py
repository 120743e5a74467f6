"""The errors of sarlib, and the checks of a declaration that raise them."""

from __future__ import annotations

import difflib
from collections.abc import Collection


class ConfigError(ValueError):
    """A declaration that cannot be run. The message is one line: what is wrong and what to do about it."""


class TrainingError(RuntimeError):
    """A training that cannot go on. The message is one line: which run, at which step, and what is left of it."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def require_known(what: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(str(name).lower().replace(" ", ""), known)
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise ConfigError(f"unknown {what} {name!r}; choose from {', '.join(known)}{hint}")
