"""What a record says of where it comes from: a commit only if it is ours, and whether the sources were edited since."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest
from untrained import keep

from sarlib.run import Run
from sarlib.runner import provenance
from sarlib.runner.machine import Machine
from sarlib.runner.schedule import execute_all
from sarlib.runner.store import Record, Store

ONE = Machine("cpu", workers=1, threads=1)


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def package_in(folder: Path) -> Path:
    package = folder / "sarlib"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    return package


def test_the_commit_of_a_checkout(tmp_path: Path) -> None:
    package = package_in(tmp_path)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "ours")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.commit(package) == {"commit": head, "dirty": False}
    (tmp_path / "notes.txt").write_text("no number depends on it")
    (package / "entropy.py").write_text("")
    provenance.commit.cache_clear()
    assert provenance.commit(package) == {"commit": head, "dirty": True}


@pytest.mark.parametrize("place", ["below/it", "."])
def test_no_commit_of_somebody_elses_repository(tmp_path: Path, place: str) -> None:
    """An archive that was unpacked within a repository, or over one that does not track it."""
    git(tmp_path, "init", "-q")
    (tmp_path / "theirs.txt").write_text("theirs")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "theirs")
    assert provenance.commit(package_in(tmp_path / place)) == {"commit": None, "dirty": None}


def test_no_commit_without_a_repository(tmp_path: Path) -> None:
    assert provenance.commit(package_in(tmp_path)) == {"commit": None, "dirty": None}


@pytest.mark.parametrize(
    ("file", "decides"),
    [
        ("models/pvt.py", True),
        ("trainer/loop.py", True),
        ("data/shapes.py", True),
        ("entropy_triton.py", True),
        ("regularizers.py", True),
        ("report/tables.py", False),
        ("experiments/table1.py", False),
        ("__main__.py", False),
    ],
)
def test_the_digest_is_of_what_decides_numbers(tmp_path: Path, file: str, decides: bool) -> None:
    package = tmp_path / "sarlib"
    shutil.copytree(provenance.PACKAGE, package)
    before = provenance.sources(package)
    assert before == provenance.sources(provenance.PACKAGE) and len(before) == 12
    (package / file).write_text((package / file).read_text() + "# edited\n")
    provenance.sources.cache_clear()
    assert (provenance.sources(package) != before) == decides


def test_edited_sources_are_told_once_with_what_to_do(store: Store, smallest_run: Run, capsys: pytest.CaptureFixture) -> None:
    runs = [smallest_run.with_seed(seed) for seed in range(4)]
    now = provenance.sources(provenance.PACKAGE)
    for run, origin in zip(runs, ({}, {"sources": now}, {"sources": "0123456789ab"}, {"sources": "0123456789ab"}), strict=True):
        keep(run, store=store)
        record = dataclasses.replace(store.read(run), provenance=origin)
        store.write(run, record=record, history=[], weights=store.weights(run))
    execute_all(runs[:2], store=store, root=None, machine=ONE)
    assert capsys.readouterr().err == ""
    execute_all(runs, store=store, root=None, machine=ONE)
    told = capsys.readouterr().err
    assert told.startswith("2 of 4 runs were trained before sarlib's sources were edited") and told.count("\n") == 1
    command = told[told.index("grep") : told.index(" names")]
    found = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout.split()
    assert sorted(found) == sorted(str(store.folder(run) / "result.json") for run in runs[2:])


def test_a_record_holds_the_digest(store: Store, smallest_run: Run, capsys: pytest.CaptureFixture) -> None:
    (record,) = execute_all([smallest_run], store=store, root=None, machine=ONE).values()
    assert isinstance(record, Record) and record.provenance["sources"] == provenance.sources(provenance.PACKAGE)
    capsys.readouterr()
    execute_all([smallest_run], store=store, root=None, machine=ONE)
    assert capsys.readouterr().err == ""
