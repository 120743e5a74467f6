"""The processes of a training: each has its own share, and one alone agrees with itself. (What they train:
tests/runner/test_launch.py.)"""

from __future__ import annotations

import pytest

from sarlib.trainer.distributed import ALONE, Ranks


@pytest.mark.parametrize("n", [0, 1, 3, 21])
def test_shares_are_a_partition(n: int) -> None:
    for size in (1, 2, 4, 5):
        shares = [Ranks(rank=rank, size=size).share(n) for rank in range(size)]
        assert [i for share in shares for i in share] == list(range(n))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_agrees_with_itself() -> None:
    assert (ALONE.broadcast("a"), ALONE.gather(1), ALONE.max(3, 0)) == ("a", [1], [3, 0])
