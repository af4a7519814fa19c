from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avfuse.features_store.labels.corpus import Corpus
from avfuse.fusion.folds.manifest import Move
from avfuse.fusion.folds.split import make_folds

TRAIN, VALIDATION = "Train_Set", "Validation_Set"


def official(train, validation):
    sets = {**dict.fromkeys(train, TRAIN), **dict.fromkeys(validation, VALIDATION)}
    return Corpus(Path("labels"), {name: Path(name) for name in sorted(sets)}, dict(sorted(sets.items())))


def plain(names):
    return Corpus(Path("labels"), {name: Path(name) for name in sorted(names)}, None)


def check_sides(corpus, manifest):
    """Every fold is disjoint and complete, sorted, and neither side is empty."""
    for fold in manifest.folds:
        assert fold.train
        assert fold.validation
        assert sorted(fold.train + fold.validation) == list(corpus.files)
        assert list(fold.train) == sorted(fold.train)
        assert list(fold.validation) == sorted(fold.validation)


def sides(fold, subjects):
    return {subjects[trial] for trial in fold.train} & {subjects[trial] for trial in fold.validation}


def test_the_slices_of_the_reference():
    """356 train and 76 validation trials: [0-71), [71-142), [142-213), [213-284), [284-356)."""
    train = [f"t{number:03}" for number in range(356)]
    validation = [f"a{number:02}" for number in range(76)]
    corpus = official(train, validation)
    manifest = make_folds(corpus)
    assert [fold.number for fold in manifest.folds] == [0, 1, 2, 3, 4, 5]
    assert manifest.folds[0].train == tuple(train)
    assert manifest.folds[0].validation == tuple(validation)
    edges = [(284, 356), (213, 284), (142, 213), (71, 142), (0, 71)]
    for fold, (start, stop) in zip(manifest.folds[1:], edges, strict=True):
        assert fold.validation == tuple(train[start:stop])
        assert fold.train == (*validation, *train[:start], *train[stop:])
    assert manifest.grouping == "none"
    assert manifest.moved == ()
    check_sides(corpus, manifest)


names = st.integers(0, 40).map(lambda number: f"{number // 3}-30-64x48-{number % 3}") | st.from_regex(
    r"video[0-9]_[12](_left|_right)?", fullmatch=True
)


@st.composite
def corpora(draw):
    every = draw(st.lists(names, unique=True, min_size=2, max_size=60))
    if draw(st.booleans()):
        return plain(every)
    cut = draw(st.integers(1, len(every) - 1))
    return official(every[:cut], every[cut:])


@settings(deadline=None)
@given(corpus=corpora(), group=st.sampled_from(["auto", "subject", "none"]), data=st.data())
def test_folds_are_disjoint_and_complete_and_keep_subjects_together(corpus, group, data):
    table = data.draw(st.none() | st.fixed_dictionaries(dict.fromkeys(corpus.files, st.sampled_from("abcdefghijk"))))
    group = "auto" if table else group
    count = None
    if corpus.sets is None:
        subjects = table or subjects_of_names(corpus, group)
        if len(set(subjects.values())) < 2:
            return
        count = data.draw(st.integers(2, len(set(subjects.values()))))
    manifest = make_folds(corpus, folds=count, group=group, groups=table)
    check_sides(corpus, manifest)
    subjects = table or subjects_of_names(corpus, manifest.grouping)
    rotated = manifest.folds if corpus.sets is None else manifest.folds[1:]
    assert not any(sides(fold, subjects) for fold in rotated)
    validated = sorted(trial for fold in rotated for trial in fold.validation)
    if corpus.sets is None:
        assert len(rotated) == count
        assert validated == list(corpus.files)
        return
    train = [trial for trial, name in corpus.sets.items() if name == TRAIN]
    assert manifest.folds[0].train == tuple(train)
    assert set(manifest.on_both_sides) == sides(manifest.folds[0], subjects)
    if rotated:
        assert [fold.number for fold in rotated] == [1, 2, 3, 4, 5]
        assert [trial for trial in validated if trial in train] == train
        assert len(set(validated)) == len(validated)
    if manifest.grouping == "none":
        assert bool(rotated) == (len(train) >= 5)
        assert not set(validated) - set(train)


def subjects_of_names(corpus, group):
    """{trial: subject} of the made-up names."""
    if group == "none":
        return {trial: trial for trial in corpus.files}
    return {trial: trial.rpartition("-")[0] if "-" in trial else trial.partition("_")[0] for trial in corpus.files}


@settings(deadline=None)
@given(corpus=corpora())
def test_moved_is_the_difference_to_no_grouping(corpus):
    if corpus.sets is None and len(set(subjects_of_names(corpus, "subject").values())) < 2:
        return
    count = None if corpus.sets else 2
    grouped, alone = (make_folds(corpus, folds=count, group=group) for group in ("subject", "none"))
    for fold in grouped.folds:
        validation = set(alone.fold(fold.number).validation)
        for move in grouped.moved:
            if move.fold == fold.number:
                assert (move.trial in validation) == (move.to == "train")
                validation ^= {move.trial}
        assert validation == set(fold.validation)


def test_a_subject_goes_with_its_first_train_trial():
    train = [f"{letter}{number}" for letter in "abcd" for number in range(2)] + ["video1_1", "video1_2"]
    corpus = official(train, ["video1_3", "w_left", "x"])
    split = make_folds(corpus)
    assert split.fold(1).validation == ("video1_1", "video1_2", "video1_3")
    assert split.moved == (Move(1, "video1_3", "validation"),)
    assert split.on_both_sides == ("video1",)
    assert split.subjects == {"video1": ("video1_1", "video1_2", "video1_3")}
    assert split.grouping == "subject"
    late = official(["a_left", "b", "c", "d", "e", "f", "g", "h", "i", "j"], ["a_right"])
    assert make_folds(late).fold(5).validation == ("a_left", "a_right", "b")
    table = {trial: {"j": "a_left"}.get(trial, trial) for trial in late.files}
    tabled = make_folds(late, groups=table)
    assert tabled.grouping == "file"
    assert tabled.fold(5).validation == ("a_left", "b", "j")
    assert tabled.fold(1).validation == ("i",)
    assert tabled.moved == (Move(1, "j", "train"), Move(5, "j", "validation"))
    assert tabled.on_both_sides == ()


def test_no_grouping_on_request_and_where_names_show_none():
    corpus = official([f"trial_{number:03}" for number in range(10)], ["trial_100"])
    assert make_folds(corpus).grouping == "none"
    pair = official([f"{number}_left" for number in range(10)], ["0_right"])
    assert make_folds(pair).on_both_sides == ("0",)
    alone = make_folds(pair, group="none")
    assert (alone.grouping, alone.moved, alone.on_both_sides, alone.subjects) == ("none", (), (), {})


@pytest.mark.parametrize("train", [["a", "b", "c", "d"], [f"video1_{number}" for number in range(10)]])
def test_too_few_for_five_slices_make_the_official_split_alone(train):
    manifest = make_folds(official(train, ["z"]))
    assert [fold.number for fold in manifest.folds] == [0]
    with pytest.raises(ValueError, match="no fold 3; there are 0"):
        manifest.fold(3)


@settings(deadline=None)
@given(trials=st.integers(2, 60), data=st.data())
def test_slices_without_subjects_are_even(trials, data):
    count = data.draw(st.integers(2, trials))
    corpus = plain([f"trial_{number:03}" for number in range(trials)])
    manifest = make_folds(corpus, folds=count)
    expected = np.array_split(list(corpus.files), count)
    assert [fold.validation for fold in manifest.folds] == [tuple(part) for part in expected]


def test_whole_subjects_are_cut_nearly_evenly():
    corpus = plain([f"video{subject}_{part}" for subject in range(6) for part in range(4)])
    manifest = make_folds(corpus, folds=3)
    assert [len(fold.validation) for fold in manifest.folds] == [8, 8, 8]
    one_large = plain([*(f"video0_{part}" for part in range(9)), "video1_0", "video2_0"])
    assert [len(fold.validation) for fold in make_folds(one_large, folds=3).folds] == [9, 1, 1]


def test_a_slice_ends_as_near_to_an_even_share_as_whole_subjects_allow():
    def sizes(counts, folds):
        corpus = plain([f"video{subject}_{part}" for subject, count in enumerate(counts) for part in range(count)])
        return [len(fold.validation) for fold in make_folds(corpus, folds=folds).folds]

    assert sizes([4, 5, 1], 2) == [4, 6]  # 4 is nearer to 5 than 9 is
    assert sizes([2, 2, 5, 1], 2) == [4, 6]
    assert sizes([3, 4, 3], 2) == [7, 3]  # 3 and 7 are as near: the larger one
    assert sizes([1, 1, 1, 1, 1], 2) == [3, 2]


def test_what_is_refused():
    split, free = official(["a", "b"], ["c"]), plain(["a_left", "a_right", "b"])
    with pytest.raises(ValueError, match=r"official split and its six folds: omit --folds"):
        make_folds(split, folds=5)
    with pytest.raises(ValueError, match=r"no official split .*: give --folds N"):
        make_folds(free)
    with pytest.raises(ValueError, match="3 folds cannot be cut from 2 subjects of 3 trials"):
        make_folds(free, folds=3)
    with pytest.raises(ValueError, match="1 folds"):
        make_folds(free, folds=1)
    with pytest.raises(ValueError, match="no trial in Validation_Set"):
        make_folds(official(["a", "b"], []))
    with pytest.raises(ValueError, match="no trial in Train_Set"):
        make_folds(official([], ["a"]))
    with pytest.raises(ValueError, match="no subject for b"):
        make_folds(free, folds=2, groups={"a_left": "x", "a_right": "y"})
    with pytest.raises(ValueError, match="contradict"):
        make_folds(free, folds=2, group="none", groups={})
