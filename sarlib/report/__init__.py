"""From tidy results to what a reader sees: tables, paired differences, verdicts on the paper's claims, figures."""

from sarlib.report.tables import (
    agreement,
    agreement_in_words,
    contrasts,
    curves,
    differences,
    epochs_to_reach,
    figure,
    read_csv,
    table,
    text,
    verdicts,
    write_csv,
)

__all__ = [
    "agreement",
    "agreement_in_words",
    "contrasts",
    "curves",
    "differences",
    "epochs_to_reach",
    "figure",
    "read_csv",
    "table",
    "text",
    "verdicts",
    "write_csv",
]
