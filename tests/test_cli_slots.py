"""The command line: which slots a command got, told in its environment."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from localconc import create_limit, read_limit
from localconc.cli.errors import CommandError, WrongUsage
from localconc.cli.slot_environment import check, with_numbers
from localconc.sync import concurrency
from tests.kit.command_line import as_json, fails, ok, running

#: Says what is in the variables that its arguments name, and lives until a line comes in.
TELL = "import os, sys; print([os.environ.get(name) for name in sys.argv[1:]], flush=True); sys.stdin.readline()"


def _telling(*variables: str) -> list[str]:
    return ["--", sys.executable, "-c", TELL, *variables]


# ---- the list in a variable ------------------------------------------------------------------------------------------


class _Occupancy:
    """Held slots with these numbers; or with none, for a reason."""

    def __init__(self, *numbers: int, error: str = "") -> None:
        self._numbers, self._error = numbers, error

    @property
    def numbers(self) -> tuple[int, ...]:
        if self._error:
            raise ValueError(self._error)
        return self._numbers


def _environment(occupancy: Any, *variables: str) -> dict[str, str]:
    return with_numbers(occupancy, variables)


@pytest.mark.parametrize(
    ("listed", "numbers", "chosen"),
    [
        ("2,3", (1,), "3"),
        ("2, 3 ,5", (0, 2), "2,5"),
        ("GPU-a,GPU-b", (0,), "GPU-a"),
        ("", (1,), "1"),
        (None, (0, 1), "0,1"),
    ],
)
def test_numbers_choose_from_the_list_that_a_variable_holds(
    listed: str | None, numbers: tuple[int, ...], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("DEVICES", listed)
    environment = _environment(_Occupancy(*numbers), "DEVICES")
    assert environment["DEVICES"] == chosen
    assert environment["LOCALCONC_SLOT"] == ",".join(map(str, numbers))


def test_a_list_that_is_too_short_is_an_error_that_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICES", "2,3")
    with pytest.raises(CommandError, match=r"slot 2 .* DEVICES=2,3 lists only 2"):
        _environment(_Occupancy(2), "DEVICES")


def test_where_slots_have_no_numbers_there_is_no_variable_but_an_error_if_one_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCALCONC_SLOT", "5")  # an outer command's
    assert "LOCALCONC_SLOT" not in _environment(_Occupancy(error="'api' has decay"))
    with pytest.raises(CommandError, match="'api' has decay"):
        _environment(_Occupancy(error="'api' has decay"), "DEVICES")


def test_a_limit_that_is_not_enforced_leaves_the_list_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICES", "2,3")
    environment = _environment(_Occupancy(), "DEVICES")
    assert environment["DEVICES"] == "2,3"
    assert "LOCALCONC_SLOT" not in environment


@pytest.mark.parametrize("variable", ["", "A=B"])
def test_what_is_no_name_of_a_variable_is_wrong_usage(variable: str) -> None:
    with pytest.raises(WrongUsage, match="--slot-env"):
        check([variable], ["gpu"])


def test_slots_of_several_limits_have_no_numbers_and_the_error_says_how_else() -> None:
    create_limit("gpu", 1)
    create_limit("db", 1)
    said = fails("run", "gpu,db", "--slot-env", "DEVICES", "--", "true", status=2)
    assert "localconc run gpu --slot-env DEVICES -- localconc run db -- COMMAND" in said


# ---- commands --------------------------------------------------------------------------------------------------------


def test_a_command_finds_the_lowest_free_numbers_of_its_slots() -> None:
    create_limit("gpu", 4)
    with running("run", "gpu", "--occupy", "2", *_telling("LOCALCONC_SLOT")) as first:
        assert first.read_line() == "['0,1']"
        with running("run", "gpu", *_telling("LOCALCONC_SLOT")) as second:
            assert second.read_line() == "['2']"
            assert [held["numbers"] for held in as_json("inspect", "gpu")["holders"]] == [[0, 1], [2]]
            assert "0,1" in ok("inspect", "gpu")
            assert "#0,1" in ok("watch")
            first.end()
            with running("run", "gpu", *_telling("LOCALCONC_SLOT")) as third:
                assert third.read_line() == "['0']"


def test_slot_env_goes_through_the_list_of_each_variable() -> None:
    create_limit("gpu", 2)
    devices = {**os.environ, "DEVICES": "4,7"}
    options = ("--slot-env", "DEVICES", "--slot-env", "OTHER")
    with (
        concurrency("gpu") as occupancy,
        running("run", "gpu", *options, *_telling("DEVICES", "OTHER"), env=devices) as command,
    ):
        assert occupancy.numbers == (0,)
        assert command.read_line() == "['7', '1']"


def test_a_list_that_is_too_short_keeps_the_command_from_starting_and_the_slot_comes_back() -> None:
    create_limit("gpu", 2)
    with concurrency("gpu") as occupancy:
        assert occupancy.numbers == (0,)
        said = fails(
            "run", "gpu", "--slot-env", "DEVICES", "--", "echo", "ran", status=1, env={**os.environ, "DEVICES": "4"}
        )
        assert "DEVICES=4 lists only 1" in said
        assert read_limit("gpu").active_slots == 1


def test_slots_that_decay_have_no_numbers() -> None:
    create_limit("api", 2, slot_decay_per_second=1.0)
    with running("run", "api", *_telling("LOCALCONC_SLOT")) as command:
        assert command.read_line() == "[None]"
    assert "'api'" in fails("run", "api", "--slot-env", "DEVICES", "--", "true", status=1)
