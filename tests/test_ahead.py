"""Results come in order however long each takes, no further ahead than allowed, and errors where they belong."""

import threading
import time

import pytest

from components.ahead import in_order


def test_results_come_in_order_and_never_too_far_ahead():
    begun, most, lock = 0, 0, threading.Lock()

    def do(item):
        nonlocal begun
        with lock:
            begun += 1
        time.sleep(0.002 * (item % 3))
        return item * item

    taken = 0
    for taken, result in enumerate(in_order(do, range(40), threads=4, ahead=6), 1):
        assert result == (taken - 1) ** 2
        most = max(most, begun - taken)
    assert taken == 40
    assert 0 < most < 6


@pytest.mark.parametrize(("heaviest", "most"), [(9, 9), (5, 8), (0, 8)])
def test_heavy_items_wait_until_there_is_room_for_them_or_come_alone(heaviest, most):
    held, seen, lock = 0, 0, threading.Lock()

    def do(weight):
        nonlocal held, seen
        with lock:
            held += weight
            seen = max(seen, held)
        return weight

    weights, found = [1, 1, 1, 8, 3, 3, 3, 3, 8, 1, 1], []
    for weight in in_order(do, weights, threads=2, ahead=6, weigh=lambda weight: weight, heaviest=heaviest):
        found.append(weight)
        with lock:
            held -= weight
    assert found == weights
    assert seen <= most


def test_an_error_is_raised_in_its_place_and_ends_the_rest():
    done = []

    def do(item):
        if item == 3:
            raise ValueError("three")
        done.append(item)
        return item

    results = in_order(do, range(1000), threads=2, ahead=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert len(done) < 10
    assert list(in_order(do, [])) == []
