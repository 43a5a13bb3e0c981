"""Deposits in tests."""

from __future__ import annotations

from collections.abc import Callable

from postoffice.delivery.files import Deposit


def put(opened: Callable[[], Deposit], letter: bytes) -> None:
    """Deposit a whole letter."""
    deposit = opened()
    try:
        deposit.write(letter)
        deposit.commit()
    except BaseException:
        deposit.abort()
        raise
