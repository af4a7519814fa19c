"""Shards are disjoint, complete, balanced, and the same everywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avfuse.batch.sharding import balanced

WEIGHTS = st.dictionaries(st.text(min_size=1), st.integers(0, 10**9))


@given(WEIGHTS, st.integers(1, 12))
def test_each_name_is_in_one_part(weights, count):
    parts = balanced(weights, count)
    assert len(parts) == count
    assert sorted(name for part in parts for name in part) == sorted(weights)


@given(WEIGHTS, st.integers(1, 12), st.randoms())
def test_the_order_in_which_names_are_found_does_not_matter(weights, count, random):
    names = list(weights)
    random.shuffle(names)
    assert balanced({name: weights[name] for name in names}, count) == balanced(weights, count)


@given(WEIGHTS.filter(bool), st.integers(1, 12))
def test_no_part_is_heavier_than_it_must_be(weights, count):
    """A part is at most the mean and the heaviest name (Graham's bound for the longest first is less)."""
    weights = {name: weight + 1 for name, weight in weights.items()}
    loads = [sum(weights[name] for name in part) for part in balanced(weights, count)]
    assert max(loads) <= sum(weights.values()) / count + max(weights.values())


def test_the_heaviest_goes_first_and_each_to_the_lightest_part():
    assert balanced({"a": 1, "b": 1, "c": 2}, 2) == [["c"], ["a", "b"]]
    assert balanced({"a": 3, "b": 5, "c": 4, "d": 2}, 2) == [["b", "d"], ["a", "c"]]
    assert balanced({"b": 1, "a": 1}, 2) == [["a"], ["b"]]  # the first part of equal ones, by name


def test_what_weighs_nothing_is_dealt_out_too():
    assert balanced(dict.fromkeys("abcd", 0), 2) == [["a", "c"], ["b", "d"]]


def test_no_parts():
    with pytest.raises(ValueError, match="got 0"):
        balanced({}, 0)
