"""What a borrowed GPU is for: `make gpu-check OUT=dir`, or `python -m sarlib.gpu_check --out dir`, within ten minutes.

It asks whether the loss is right there (`kernel`), what the method costs (`benchmark`, `training`), whether the input keeps up
(`feeding`), and trains as much of the paper's tables as the time allows (`tables`). Every part is a process of its own (`runner`): one
that fails or hangs takes no other with it. What it finds is in the folder as soon as it is known (`records`), and the next call goes
on where this one ended. `plan` says how much is done, `bars` what is hoped for.
"""
