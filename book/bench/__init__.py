"""What the method costs: `make bench`, or `python -m bench --device auto`, measures it and writes one report.

Everything that is compared runs in turns within one process (`interleaved`), after it was shown to give equal results. `loss`
sets the loss against other ways of calculating it (`rivals`), `step` sets training steps against timm's own, and `device` adds
what only a GPU has. `report` keeps the outcome as JSON and turns it into tables, `bars` judges it.
"""
