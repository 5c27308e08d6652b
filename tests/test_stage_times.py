"""What is spent around the stages of a run, from the times that MLflow has."""

import pytest

from flows.stage_times import StageTimes, stage_times, union_length


@pytest.mark.parametrize(
    ("intervals", "length"),
    [
        ([], 0),
        ([(1, 3)], 2),
        ([(5, 6), (1, 3)], 3),  # apart
        ([(1, 4), (2, 3)], 3),  # one within another
        ([(1, 3), (2, 5), (5, 6)], 5),  # over one another, and side to side
    ],
)
def test_the_length_of_a_union(intervals, length):
    assert union_length(intervals) == length


def test_what_is_around_stages_is_what_no_stage_covers():
    times = StageTimes(begun=100.0, ended=110.0, stages={"a": (101.0, 104.0), "b": (103.0, 107.0)})
    assert (times.whole, times.summed, times.busy, times.around) == (10.0, 7.0, 6.0, 4.0)


def test_stages_that_did_not_run_do_not_count():
    def run(start, end, ran):
        info = {"start_time": start, "end_time": str(end)}  # MLflow's JSON has both kinds of numbers
        return {"info": info, "data": {"tags": [{"key": "ran", "value": ran}]}}

    class Client:
        def children(self, parent):
            return {"late": run(4000, 6000, "true"), "early": run(1000, 3000, "true"), "kept": run(1000, 9000, "false")}

    found = stage_times(Client(), run(0, 10_000, ""))
    assert list(found.stages) == ["early", "late"] and found.around == 6.0
