"""The scripts of the interactions calculate what sarlib calculates, are small, and load as a page from disk can."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from sarlib.entropy import components, entropy_and_gradient
from sarlib.tasks.masks import mass_mask

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "book" / "_assets"
SCRIPTS = sorted(ASSETS.glob("*.js"))
MAPS = json.loads((Path(__file__).parent / "maps.json").read_text())

PROGRAM = """
global.window = global;
require(process.argv[1]);
const maps = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(maps.map(map => {
  const S = map.flat(), found = window.SAR.entropy(S, map.length, map[0].length);
  return {H: found.H, label: found.label, gradient: found.gradient, mask: window.SAR.mask(S, 0.6)};
})));
"""


@pytest.fixture(scope="module")
def calculated() -> list[dict]:
    """What entropy.js makes of the committed maps, by node, or by a browser where there is no node."""
    if node := shutil.which("node"):
        command = [node, "-e", PROGRAM, ASSETS / "entropy.js"]
        done = subprocess.run(command, input=json.dumps(MAPS), capture_output=True, text=True, check=True)
        return json.loads(done.stdout)
    import browser
    import pdf

    if pdf.browser() is None:
        pytest.skip("needs node or a Chromium")
    with browser.opened() as page:
        page.run((ASSETS / "entropy.js").read_text() + "; 0")
        body = PROGRAM.split("console.log(")[1].rsplit(");", 1)[0]
        return json.loads(page.run(f"(maps => {body})({json.dumps(MAPS)})"))


def test_two_hundred_maps_have_sarlibs_components_entropy_gradient_and_masks(calculated: list[dict]) -> None:
    assert len(MAPS) == len(calculated) == 200
    for drawn, found in zip(MAPS, calculated, strict=True):
        maps = torch.tensor(drawn, dtype=torch.float64)
        entropy, gradient = entropy_and_gradient(maps[None])
        assert found["label"] == components(maps).flatten().tolist()
        assert found["H"] == pytest.approx(float(entropy), abs=1e-12)
        assert found["gradient"] == pytest.approx(gradient.flatten().tolist(), abs=1e-9)
        assert found["mask"] == mass_mask(maps).flatten().tolist()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_small_and_classic(script: Path) -> None:
    assert script.stat().st_size <= 15_000
    assert not re.search(r"\bfetch\(|\bimport\b|\bexport\b|XMLHttpRequest|https?://(?!www\.w3\.org)", script.read_text())


def test_pages_load_scripts_as_a_page_from_disk_can() -> None:
    for page in (ROOT / "book").glob("*.md"):
        assert "type=module" not in page.read_text() and 'type="module"' not in page.read_text(), page.name
