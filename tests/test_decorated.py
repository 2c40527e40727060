"""What the decorators accept."""

from __future__ import annotations

import functools
from typing import Any

import pytest

import localconc.asyncio
import localconc.sync
from localconc import create_limit, read_limit
from localconc.sync import concurrency


class _Station:
    @concurrency("db")
    def plain(self) -> int:
        return read_limit("db").active_slots

    @classmethod
    @concurrency("db")
    def of_class(cls) -> int:
        return read_limit("db").active_slots

    @staticmethod
    @concurrency("db")
    def static() -> int:
        return read_limit("db").active_slots


@pytest.mark.parametrize("kind", ["plain", "of_class", "static"])
def test_methods_of_every_kind_hold_while_they_run(kind: str) -> None:
    create_limit("db", 1)
    assert getattr(_Station(), kind)() == 1


@pytest.mark.parametrize(
    "no_function", [5, None, "name", _Station, functools.partial(_Station), classmethod(print), staticmethod(print)]
)
def test_what_is_no_function_can_not_be_decorated(no_function: Any) -> None:
    for face in (localconc.sync, localconc.asyncio):
        with pytest.raises(TypeError):
            face.concurrency("db")(no_function)
