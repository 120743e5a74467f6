"""The book on paper."""

from __future__ import annotations

from pathlib import Path

import pdf
import pytest


@pytest.mark.skipif(pdf.browser() is None, reason=f"needs one of {', '.join(pdf.BROWSERS)}")
def test_a_page_is_printed_after_its_scripts_have_run(tmp_path: Path) -> None:
    page, out = tmp_path / "index.html", tmp_path / "book.pdf"
    late = "setTimeout(() => document.body.innerHTML = '<p style=\"break-before: page\">one</p>'.repeat(3), 5000)"
    page.write_text(f"<html><body>nothing yet<script>{late}</script></body></html>")
    pdf.print_page(page, out)
    assert out.read_bytes().startswith(b"%PDF") and out.read_bytes().count(b"/Type /Page\n") == 3


def test_without_a_browser_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(pdf, "browser", lambda: None)
    assert pdf.main() == 2
    assert capsys.readouterr().out.startswith("the book is printed by a browser: install one of chromium, ")
