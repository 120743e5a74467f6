"""What the method costs: `make bench`, or `python -m bench --device auto`, measures it and writes one report.

Everything that is compared runs in turns within one process (`interleaved`), after it was shown to give equal results. `loss`
sets the loss against other ways of calculating it (`baselines`), `augmentation` and `step` set batches and training steps
against timm's own, `overhead` sets regularizers against none, and `device` adds what only a GPU has. `report` keeps the outcome
as JSON and turns it into tables, `bars` judges it.

A program of the book, not part of sarlib: from the checkout, `cd book && python -m bench`.
"""
