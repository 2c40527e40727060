"""What pictures of the history draw: lanes, curves, and who held whom up."""

from __future__ import annotations

from itertools import pairwise

import pytest

from localconc.cli.output.timeline.lanes import MAX_HOLDERS, names_of, program
from localconc.cli.output.timeline.model import Caller, Timeline, timeline_of
from localconc.cli.output.timeline.words import headline, middle_shortened, victims_text
from tests.kit.made_up_history import BEGIN, Job, acquired, limit, served, waiter


def timeline(*acquisitions, slots: int = 1, seconds: float = 100.0, **options) -> Timeline:
    return timeline_of(acquisitions, until=BEGIN + seconds, limits=[limit("db", slots)], **options)


def points(curve) -> list[tuple[float, float]]:
    return [(round(moment - BEGIN, 3), figure) for moment, figure in curve.points]


# ---- who held whom up ------------------------------------------------------------------------------------------------


def test_a_wait_is_charged_to_the_holder_it_waited_for():
    [group] = timeline(*served("db", 1, [Job(0, 10, pid=1), Job(2, 5, pid=2)])).groups
    assert [bar.caused_seconds for bar in group.bars] == pytest.approx([8, 0])
    assert group.waited_seconds == pytest.approx(8)


def test_holders_share_a_wait_by_their_slots():
    jobs = [
        acquired(Job(0, 10, pid=1), slots=3),
        acquired(Job(0, 10, pid=2), slots=1),
        acquired(Job(2, 1, pid=3), waited=8),
    ]
    [group] = timeline(*jobs, slots=4).groups
    assert {bar.caller.pid: bar.caused_seconds for bar in group.bars} == pytest.approx({1: 6, 2: 2, 3: 0})


def test_what_all_caused_adds_up_to_what_all_waited():
    jobs = [Job(n * 0.7, 1 + n % 5, pid=n % 6) for n in range(60)]
    [group] = timeline(*served("db", 2, jobs), slots=2, seconds=500).groups
    assert sum(bar.caused_seconds for bar in group.bars) == pytest.approx(group.waited_seconds, rel=1e-6)
    assert group.waited_seconds > 100


def test_the_worst_hold_up_comes_first_and_names_its_victims():
    jobs = [Job(0, 60, pid=1, label="import"), Job(1, 1, pid=2, label="web"), Job(31, 1, pid=3, label="mail")]
    found = timeline(*served("db", 1, jobs))
    worst = found.hold_ups[0]
    assert worst.caller.label == "import"
    assert worst.worst.held_seconds == pytest.approx(60)
    assert [(caller.label, round(seconds)) for caller, seconds in worst.victims] == [("web", 59), ("mail", 29)]
    assert headline(found) == "import held others up most: requests waited 1m28s because of it, of 1m29s in all for db."


def test_a_request_that_waits_now_is_held_up_too():
    found = timeline(acquired(Job(0, 0, pid=1, label="stuck", ending="held")), waiters=[waiter(since=40, label="late")])
    assert found.hold_ups[0].caused_seconds == pytest.approx(60)
    [late] = [bar for bar in found.groups[0].bars if bar.ending == "waiting"]
    assert late.waited_seconds == pytest.approx(60)


def test_a_waiter_for_another_limit_is_left_out():
    found = timeline(acquired(Job(0, 5)), waiters=[waiter("other")], only={"db"})
    assert [group.name for group in found.groups] == ["db"]


def test_nobody_holds_up_others_where_nobody_waits():
    found = timeline(acquired(Job(0, 5)))
    assert found.hold_ups == []
    assert headline(found) == "No request had to wait."


def test_the_limit_with_the_longest_waits_comes_first():
    calm = [acquired(Job(0, 5), "calm")]
    found = timeline(*calm, *served("db", 1, [Job(0, 10), Job(1, 5, pid=2)]))
    assert [group.name for group in found.groups] == ["db", "calm"]
    assert [group.limit for group in found.groups] == [1, None]


def notable(*jobs: Job, slots: int = 1) -> set[str]:
    """The labels of the bars that stand out."""
    [group] = timeline(*served("db", slots, jobs), slots=slots, seconds=2_000).groups
    return {bar.caller.label for bar in group.bars if bar.caused_seconds >= group.notable_seconds}


def test_the_bars_that_caused_much_of_the_waiting_stand_out():
    assert notable(Job(0, 60, label="import"), Job(1, 1, label="web"), Job(2, 1, label="mail")) == {"import"}


def test_a_bar_far_worse_than_many_others_stands_out_though_its_share_is_small():
    jobs = [Job(n, 3, pid=n, label=str(n)) for n in range(300)]
    assert notable(*jobs[:150], Job(150, 30, label="slow"), *jobs[151:], slots=2) == {"slow"}


def test_among_many_equal_bars_none_stands_out():
    assert notable(*(Job(n, 3, pid=n, label=str(n)) for n in range(300)), slots=2) == set()


def test_callers_that_would_be_called_the_same_are_told_apart_by_their_pid():
    found = timeline(*served("db", 1, [Job(0, 60, pid=1), Job(1, 9, pid=2), Job(2, 1, pid=3, label="web")]))
    assert headline(found).startswith("job.py (1) held others up most: ")
    assert victims_text(found, found.hold_ups[0]) == "job.py (2) by 59.0s, web by 58.0s"


@pytest.mark.parametrize(
    ("command", "title"),
    [
        ("python /srv/jobs/import.py --fast", "import.py --fast"),
        ("/usr/bin/python3.11 -B -X utf8 -u /srv/import.py a/b", "import.py a/b"),
        ("python -m jobs.run", "python -m jobs.run"),
        ("python -c print(1)", "python -c print(1)"),
        ("/usr/bin/train --seed 1", "train --seed 1"),
        ("python -B -c from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=14, pipe_handle=22) "
         "--multiprocessing-fork", "multiprocessing"),
        ("/usr/bin/python3 -c from multiprocessing.forkserver import main; main(15, 16, ['__main__'])",
         "multiprocessing"),
        ("python -m joblib.externals.loky.backend.popen_loky_posix --process-name LokyProcess-3 --pipe 16",
         "LokyProcess-3"),
    ],
)  # fmt: skip
def test_a_command_is_called_after_its_program(command: str, title: str):
    assert program(command) == title


def test_a_child_of_a_pool_is_called_after_its_label_and_its_pid():
    command = "python -c from multiprocessing.spawn import spawn_main; spawn_main(1) --multiprocessing-fork"
    assert names_of(Caller(7, "MainThread", "worker 1", command)) == ("worker 1", "pid 7")
    assert names_of(Caller(7, "MainThread", "", command)) == ("multiprocessing", "pid 7")


# ---- curves ----------------------------------------------------------------------------------------------------------


def test_slots_in_use_and_requests_waiting_are_counted_over_time():
    [group] = timeline(*served("db", 1, [Job(0, 10, pid=1), Job(2, 5, pid=2)])).groups
    assert points(group.used) == [(0, 1), (15, 0)]
    assert points(group.waiting) == [(0, 0), (2, 1), (10, 0)]


def test_a_hand_off_that_seems_to_overlap_does_not_exceed_the_limit():
    [group] = timeline(acquired(Job(0, 10.0004, pid=1)), acquired(Job(10, 5, pid=2))).groups
    assert group.used.peak == 1


def test_holds_from_before_a_limit_was_lowered_stay_above_it():
    [group] = timeline(acquired(Job(0, 10, pid=1)), acquired(Job(0, 10, pid=2)), slots=1).groups
    assert group.used.peak == 2


def test_slots_of_a_limit_with_decay_drain():
    taken = [acquired(Job(0, 0, ending="instant"), slots=4), acquired(Job(2, 0, ending="instant"), slots=1)]
    [group] = timeline_of(taken, until=BEGIN + 10, limits=[limit("db", 5, 1.0)]).groups
    assert points(group.used) == [(0, 0), (0, 4), (2, 2), (2, 3), (5, 0)]
    assert not group.used.stepped


def test_a_limit_with_decay_that_ran_empty_starts_from_nothing():
    taken = [acquired(Job(0, 0, ending="instant"), slots=2), acquired(Job(50, 0, ending="instant"), slots=1)]
    [group] = timeline_of(taken, until=BEGIN + 50.5, limits=[limit("db", 5, 1.0)]).groups
    assert points(group.used) == [(0, 0), (0, 2), (2, 0), (50, 0), (50, 1), (50.5, 0.5)]


# ---- ends and windows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "held"), [("released", 7), ("killed", 7), ("held", 100), ("unseen", 0), ("instant", 0)]
)
def test_a_bar_ends_as_far_as_it_is_known(ending: str, held: float):
    [group] = timeline(acquired(Job(0, 7, ending=ending))).groups
    assert group.bars[0].held_seconds == pytest.approx(held)


def test_the_window_begins_where_it_is_told_or_with_the_first_wait():
    jobs = served("db", 1, [Job(5, 10, pid=1), Job(6, 5, pid=2)])
    assert timeline(*jobs).since == pytest.approx(BEGIN + 5)
    assert timeline(*jobs, since=BEGIN + 12).since == pytest.approx(BEGIN + 12)


def test_without_a_window_what_is_long_over_fills_the_picture():
    jobs = served("db", 1, [Job(5, 10, pid=1), Job(6, 5, pid=2)])
    found = timeline(*jobs, seconds=9_000)
    assert (found.until, found.ends_before_now) == (pytest.approx(BEGIN + 20), True)
    found = timeline(*jobs, seconds=9_000, since=BEGIN)
    assert (found.until, found.ends_before_now) == (BEGIN + 9_000, False)


@pytest.mark.parametrize("open_end", ["held", "waiting"])
def test_without_a_window_the_picture_lasts_as_long_as_something_is_held_or_waited_for(open_end: str):
    job = acquired(Job(5, 10, ending="released" if open_end == "waiting" else "held"))
    waiters = [waiter(since=7)] if open_end == "waiting" else []
    found = timeline(job, seconds=9_000, waiters=waiters)
    assert (found.until, found.ends_before_now) == (BEGIN + 9_000, False)


def test_without_a_window_slots_that_drain_are_shown_until_they_have_drained():
    taken = [acquired(Job(0, 0, ending="instant"), slots=4)]
    assert timeline_of(taken, until=BEGIN + 99, limits=[limit("db", 5, 1.0)]).until == pytest.approx(BEGIN + 4)


# ---- lanes -----------------------------------------------------------------------------------------------------------


def test_each_process_thread_and_label_has_a_lane():
    jobs = [Job(0, 1, pid=1), Job(2, 1, pid=1), Job(4, 1, pid=1, thread="Worker-1"), Job(6, 1, pid=1, label="mail")]
    [group] = timeline(*(acquired(job) for job in jobs)).groups
    assert [(lane.title, lane.detail, len(lane.bars)) for lane in group.lanes] == [
        ("job.py", "pid 1", 2),
        ("Worker-1", "job.py · pid 1", 1),
        ("mail", "job.py · pid 1", 1),
    ]


def test_bars_of_one_holder_that_overlap_stand_below_each_other():
    jobs = [acquired(Job(0, 10, pid=1)), acquired(Job(5, 10, pid=1)), acquired(Job(12, 1, pid=1))]
    [group] = timeline(*jobs, slots=2).groups
    assert [(lane.holder, lane.title, len(lane.bars)) for lane in group.lanes] == [(0, "job.py", 2), (0, "", 1)]


def test_what_a_holder_caused_stands_beside_the_first_of_its_lanes():
    jobs = [Job(0, 10, pid=1), Job(5, 10, pid=1), Job(6, 1, pid=2)]
    [group] = timeline(*served("db", 1, jobs)).groups
    assert [(lane.holder, lane.title, lane.caused_seconds) for lane in group.lanes] == [
        (0, "job.py", pytest.approx(5 + 4 + 10)),
        (0, "", 0),
        (1, "job.py", 0),
    ]


def test_many_tasks_that_ran_once_share_the_lanes_of_their_process():
    jobs = [acquired(Job(n, 1.5, pid=n % 2, thread=f"Task-{n}")) for n in range(MAX_HOLDERS + 50)]
    [group] = timeline(*jobs, slots=9, seconds=500).groups
    assert [(lane.title, lane.detail) for lane in group.lanes] == [("job.py", "pid 0"), ("job.py", "pid 1")]


def test_many_processes_that_ran_once_share_the_lanes_of_their_command_or_program():
    def lanes(command: str) -> list[tuple[str, str]]:
        jobs = [acquired(Job(n, 1.5, pid=n, command=command.format(n))) for n in range(MAX_HOLDERS + 50)]
        [group] = timeline(*jobs, slots=9, seconds=500).groups
        return [(lane.title, lane.detail) for lane in group.lanes]

    assert lanes("python job.py --fast") == [("job.py --fast", "150 processes"), ("", "")]
    assert lanes("python job.py --id {}") == [("job.py", "150 processes"), ("", "")]
    assert lanes("python job{}.py") == [("several programs", "150 processes"), ("", "")]


def test_who_held_others_up_is_told_apart_even_where_lanes_are_shared():
    jobs = [Job(n, 0.5, pid=n) for n in range(MAX_HOLDERS + 50)]
    jobs[70] = Job(70, 9, pid=70, label="slow")
    assert timeline(*served("db", 1, jobs), seconds=500).hold_ups[0].caller.label == "slow"


def test_no_bars_in_a_lane_overlap():
    jobs = [Job(n * 0.3, 1 + n % 4, pid=n % 3, thread=f"Task-{n}") for n in range(300)]
    [group] = timeline(*served("db", 5, jobs), slots=5, seconds=900).groups
    for lane in group.lanes:
        for earlier, later in pairwise(lane.bars):
            assert earlier.hold_end <= later.waiting_since


def test_a_long_name_keeps_both_of_its_ends():
    assert middle_shortened("worker.py --queue default --shard 23", 20) == "worker.py…--shard 23"
    assert middle_shortened("short", 20) == "short"
    assert middle_shortened("anything", 0) == ""
