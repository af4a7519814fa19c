import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import ArrayLike

from avfuse.features_store.labels.corpus import open_corpus
from avfuse.features_store.store import FeatureStore
from avfuse.fusion.config import RunConfig
from avfuse.fusion.data.statistics import Moments, Statistics, as_json, from_json, moments_of, statistics_of, together
from avfuse.fusion.folds.split import make_folds
from avfuse.fusion.runs.experiment import open_experiment
from avfuse.fusion.settings import preset

MODALITIES = ("iresnet50", "vggish", "logmel_vgg")
NUMBERS = st.floats(-100, 100, width=32)
PARTS = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.integers(0, 20).flatmap(lambda count: arrays(np.float32, (count, width), elements=NUMBERS)),
        min_size=1,
        max_size=5,
    )
)


def of(rows: ArrayLike, kind="feature") -> Statistics:
    return statistics_of(moments_of(np.asarray(rows, np.float32)), kind)


@settings(deadline=None)
@given(PARTS)
def test_moments_of_parts_are_those_of_all_rows(parts):
    rows = np.concatenate(parts).astype(np.float64)
    merged = together(moments_of(part) for part in parts)
    assert merged.count == len(rows)
    if not len(rows):
        assert not merged.mean.any()
        assert not merged.squares.any()
        return
    np.testing.assert_allclose(merged.mean, rows.mean(0), rtol=1e-6, atol=3e-5)  # float32 of up to 200
    np.testing.assert_allclose(np.sqrt(merged.squares / len(rows)), rows.std(0), rtol=1e-5, atol=1e-5)


@settings(deadline=None)
@given(PARTS)
def test_scalar_statistics_are_those_of_all_elements(parts):
    elements = np.concatenate(parts).astype(np.float64)
    found = statistics_of(together(moments_of(part) for part in parts), "scalar")
    assert np.all(found.mean == found.mean[0])
    assert np.all(found.std == found.std[0])
    if not len(elements):
        assert (found.mean[0], found.std[0]) == (0, 1)
        return
    atol = max(1e-5, 1e-6 * float(np.abs(elements).max()))  # sums in float32
    np.testing.assert_allclose(found.mean[0], elements.mean(), rtol=1e-6, atol=atol)
    if elements.std() > 1e-3:
        np.testing.assert_allclose(found.std[0], elements.std(), rtol=1e-4, atol=1e-5)


def test_many_parts_with_an_offset_lose_nothing():
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((20_000, 3)) + np.array([0, 100, 1000])).astype(np.float32)
    parts = np.split(rows, np.sort(rng.integers(0, len(rows), 99)))
    found = statistics_of(together(moments_of(part) for part in parts), "feature")
    np.testing.assert_allclose(found.mean, rows.astype(np.float64).mean(0), rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(found.std, rows.astype(np.float64).std(0), rtol=1e-6)


@pytest.mark.parametrize("size", [1e25, 3e38])
def test_squares_beyond_float32_are_no_matter(size):
    rows = (size * np.random.default_rng(0).uniform(-1, 1, (300, 2))).astype(np.float32)
    np.testing.assert_allclose(of(rows).std, rows.astype(np.float64).std(0), rtol=1e-6)
    np.testing.assert_allclose(of(rows).mean, rows.astype(np.float64).mean(0), rtol=1e-5)


def test_one_dimension_of_two_whose_squares_are_beyond_float32():
    rows = np.random.default_rng(0).uniform(-1, 1, (300, 2)) * [1e25, 1]
    for columns in ([0, 1], [1, 0]):
        found, expected = of(rows[:, columns]), rows[:, columns].astype(np.float32).astype(np.float64)
        np.testing.assert_allclose(found.std, expected.std(0), rtol=1e-6)
        np.testing.assert_allclose(found.mean, expected.mean(0), rtol=1e-5)


def test_both_kinds_by_hand():
    rows = [[0, 10], [2, 10], [4, 13]]
    each, one = of(rows), of(rows, "scalar")
    np.testing.assert_allclose(each.mean, [2, 11], rtol=1e-7)
    np.testing.assert_allclose(each.std, [np.sqrt(8 / 3), np.sqrt(2)], rtol=1e-6)
    np.testing.assert_allclose(one.mean, [6.5, 6.5], rtol=1e-7)
    np.testing.assert_allclose(one.std, [np.std(rows)] * 2, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6, 1e-12, 3e37])
def test_a_dimension_that_never_changes_has_the_deviation_one(value):
    parts = [np.stack([np.full(n, value), np.arange(n)], 1).astype(np.float32) for n in (3, 50, 7)]
    found = statistics_of(together(moments_of(part) for part in parts), "feature")
    assert found.std[0] == 1
    assert found.mean[0] == np.float32(value)
    assert found.std[1] > 1


@pytest.mark.parametrize("kind", ["scalar", "feature"])
@pytest.mark.parametrize("scale", [1e-9, 1e-12, 1e-20, 1e-30])
def test_a_feature_of_tiny_scale_has_its_own_deviation(kind, scale):
    rows = np.random.default_rng(0).standard_normal((300, 3))
    rows[:, 2] = 0.5  # never changes
    plain, tiny = of(rows, kind), of(rows * scale, kind)
    changing = slice(0, 2)
    np.testing.assert_allclose(tiny.std[changing], scale * plain.std[changing], rtol=1e-5)
    assert kind == "scalar" or tiny.std[2] == 1


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-12])
def test_a_modality_that_never_changes_has_the_deviation_one(value):
    found = together(moments_of(np.full((n, 7), value, np.float32)) for n in (3, 200, 130))
    assert statistics_of(found, "scalar").std.tolist() == [1] * 7


@pytest.mark.parametrize("kind", ["scalar", "feature"])
def test_a_modality_without_a_row_is_left_as_it_is(kind):
    found = of(np.empty((0, 3)), kind)
    assert found.mean.tolist() == [0, 0, 0]
    assert found.std.tolist() == [1, 1, 1]


def test_parts_without_rows_change_nothing():
    rows, nothing = (
        moments_of(np.random.default_rng(0).random((9, 2), np.float32)),
        Moments(0, np.zeros(2), np.zeros(2)),
    )
    for merged in (together([rows, nothing]), together([nothing, rows])):
        assert merged.count == 9
        assert np.array_equal(merged.mean, rows.mean)
        assert np.array_equal(merged.squares, rows.squares)


@settings(deadline=None)
@given(PARTS, st.sampled_from(["scalar", "feature"]))
def test_json_gives_the_same_bits_back(parts, kind):
    found = {"a": statistics_of(together(moments_of(part) for part in parts), kind), "b": of([[1]])}
    again = from_json(json.loads(json.dumps(as_json(found))))
    assert list(again) == ["a", "b"]
    for name, statistics in found.items():
        assert np.array_equal(again[name].mean, statistics.mean)
        assert np.array_equal(again[name].std, statistics.std)
        assert again[name].mean.shape == again[name].std.shape == statistics.mean.shape


def test_json_of_scalar_statistics_is_one_number_each():
    found = as_json({"face": of(np.arange(10).reshape(5, 2), "scalar")})
    assert found == {"face": {"mean": 4.5, "std": pytest.approx(np.arange(10).std()), "width": 2}}


@pytest.fixture(scope="module")
def planted(make_planted):
    return make_planted(trials=6, rows=(40, 60), shuffled=False)


def fold_statistics(planted, fold, kind):
    """Statistics as a run of one fold gets them, and the fold."""
    store, corpus = FeatureStore(planted.store), open_corpus(planted.annotations)
    config = replace(preset("concat"), modalities=MODALITIES, statistics=kind)
    manifest = make_folds(corpus, folds=None, group="none", groups=None)
    experiment = open_experiment(
        store, corpus, manifest, [fold], config, RunConfig(device="cpu"), allow_other_features=False
    )
    return experiment.describe(config, fold).statistics, experiment.checked.folds[fold]


def arrays_of(planted, trials):
    for trial in trials:
        for modality in MODALITIES:
            yield zarr.open_array(Path(planted.store, trial, modality), mode="r+")


@pytest.mark.parametrize("poison", [np.nan, 1e30, 3e38, -np.inf])
@pytest.mark.parametrize("kind", ["scalar", "feature"])
@pytest.mark.parametrize("fold", [0, 1, 5])
def test_no_validation_row_is_in_the_statistics(planted, fold, kind, poison):
    clean, split = fold_statistics(planted, fold, kind)
    kept = [array[:] for array in arrays_of(planted, split.validation)]
    try:
        for array in arrays_of(planted, split.validation):
            array[:] = poison * np.random.default_rng(0).choice([-1, 1], array.shape)
        found, poisoned_split = fold_statistics(planted, fold, kind)
    finally:
        for array, rows in zip(arrays_of(planted, split.validation), kept, strict=True):
            array[:] = rows
    assert poisoned_split == split
    assert list(found) == list(clean) == list(MODALITIES)
    for modality in MODALITIES:
        assert np.array_equal(found[modality].mean, clean[modality].mean)
        assert np.array_equal(found[modality].std, clean[modality].std)


def test_a_training_row_is_in_the_statistics(planted):
    clean, split = fold_statistics(planted, 0, "scalar")
    array = next(arrays_of(planted, split.train))
    kept = array[:]
    try:
        array[:] = 1000
        found, _ = fold_statistics(planted, 0, "scalar")
    finally:
        array[:] = kept
    assert found["iresnet50"].mean[0] > clean["iresnet50"].mean[0] + 10


@pytest.mark.parametrize("kind", ["scalar", "feature"])
def test_statistics_are_those_of_the_training_rows(planted, kind):
    found, split = fold_statistics(planted, 0, kind)
    store = FeatureStore(planted.store)
    axis = 0 if kind == "feature" else None
    for modality in MODALITIES:
        rows = np.concatenate([store[name][modality][:] for name in split.train]).astype(np.float64)
        np.testing.assert_allclose(found[modality].mean, np.broadcast_to(rows.mean(axis), rows.shape[1]), atol=1e-6)
        np.testing.assert_allclose(found[modality].std, np.broadcast_to(rows.std(axis), rows.shape[1]), rtol=1e-6)


def test_rows_that_are_not_valid_are_not_in_the_statistics(make_data):
    rng = np.random.default_rng(0)
    rows, valid = rng.standard_normal((50, 3)).astype(np.float32), rng.random(50) < 0.6
    spoiled = np.where(valid[:, None], rows, 1000).astype(np.float32)
    data = make_data({"a": {"face": spoiled, "face_valid": valid}})
    found = data.statistics(["a"], replace(preset("concat"), modalities=("face",), statistics="feature"))["face"]
    np.testing.assert_allclose(found.mean, rows[valid].mean(0), atol=1e-6)
    np.testing.assert_allclose(found.std, rows[valid].std(0), rtol=1e-5)
