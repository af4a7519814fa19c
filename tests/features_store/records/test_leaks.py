"""Trials that a feature's weights have learned from are recognised by name, whatever folders are before it."""

import pytest

from avfuse.features_store.records.leaks import leak_line, leaks, learned_from, trials_of, tuning_of


@pytest.mark.parametrize(
    ("scored", "found"),
    [
        (["a", "c"], ["a"]),
        (["batch1/A", "x/b"], ["batch1/A"]),  # another store has other folders
        (["video5", "video5_right", "video6_left"], ["video5", "video5_right"]),  # the same video, the same people
        (["122-60-1920x1080-2"], ["122-60-1920x1080-2"]),
        ([], []),
    ],
)
def test_names_and_subjects(scored, found):
    tuning = {"trials": ["a", "some/video5_left", "122-60-1920x1080-1"]}
    assert learned_from(tuning, scored) == found
    assert learned_from(None, scored) == []
    assert learned_from({"trials": []}, scored) == []


def test_what_an_entry_says():
    tuning = {"trials": ["a"]}
    assert tuning_of({"weights": {"name": "w", "tuning": tuning}}) == tuning
    assert tuning_of({"weights": {"name": "w"}}) is None
    assert tuning_of({}) is None
    assert trials_of(tuning) == ("a",)
    assert trials_of("a") == trials_of({"trials": "a"}) == ()


def test_each_trial_by_the_weights_that_its_own_rows_come_from():
    both = {"f1": {"trials": ["a", "b"]}, "f2": {"trials": ["c"]}}
    tuned = {"face": both, "voice": both}
    seen = {
        "a": {"face": "f2", "voice": "v"},
        "b": {"face": "f1", "voice": "f1"},
        "c": {"face": "f1", "voice": "f2"},
    }
    assert leaks(tuned, seen) == {"face": ["b"], "voice": ["b", "c"]}
    assert leaks({"voice": both}, seen) == {"voice": ["b", "c"]}
    assert leaks({}, seen) == {}


def test_the_line_names_features_and_trials():
    assert leak_line({}, "trial") == ""
    assert leak_line({"iresnet50": ["a", "b"], "logmel_vgg": ["b"]}, "validation trial") == (
        "iresnet50, logmel_vgg of 2 validation trials (a, b) come from weights that they were tuned on"
    )
