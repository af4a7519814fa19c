"""Shards are disjoint, complete, balanced, and the same everywhere."""

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avfuse.batch.options import Shard
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


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}, (3, 8)),
        ({"SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "1"}, (7, 8)),
        ({"ID": "30", "COUNT": "4", "MIN": "0", "MAX": "30", "STEP": "10"}, (3, 4)),
        ({"ID": "10", "COUNT": "4", "MIN": "0", "MAX": "30", "STEP": "10"}, (1, 4)),
        ({"ID": "8", "COUNT": "3", "MIN": "0", "MAX": "9", "STEP": "4"}, (2, 3)),  # 0-9:4
        ({"ID": "5", "COUNT": "3", "MIN": "1", "MAX": "5", "STEP": "2"}, (2, 3)),
        ({"ID": "7", "COUNT": "1", "MIN": "7", "MAX": "7", "STEP": "1"}, (0, 1)),
        ({"SLURM_ARRAY_TASK_ID": "3"}, (0, 1)),
        ({}, (0, 1)),
    ],
)
def test_shard_auto_is_the_place_in_the_slurm_array(monkeypatch, capsys, environment, place):
    for name in ("ID", "COUNT", "MIN", "MAX", "STEP"):
        monkeypatch.delenv(f"SLURM_ARRAY_TASK_{name}", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name if name.startswith("SLURM") else f"SLURM_ARRAY_TASK_{name}", value)
    assert Shard().convert("auto", None, None) == place
    alone = "SLURM_ARRAY_TASK_ID" in environment and len(environment) == 1
    assert ("SLURM_ARRAY_TASK_COUNT is not a number" in capsys.readouterr().err) == alone


@pytest.mark.parametrize("task", ["1", "3", "5", "7"])
def test_an_array_that_is_not_evenly_spaced_is_refused(monkeypatch, task):
    """--array=1,3,5,7 has step 1 in SLURM's words: task 3 would be part 2, and part 1 done by nobody."""
    for name, value in {"ID": task, "COUNT": "4", "MIN": "1", "MAX": "7", "STEP": "1"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    with pytest.raises(click.BadParameter, match="not evenly spaced: use --array=0-N"):
        Shard().convert("auto", None, None)


@pytest.mark.parametrize("text", ["3/3", "-1/3", "1", "a/b", "1/0"])
def test_a_shard_outside_is_refused(text):
    with pytest.raises(click.BadParameter, match="0 ≤ I < N"):
        Shard().convert(text, None, None)
