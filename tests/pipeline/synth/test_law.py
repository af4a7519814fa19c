"""What the planted law promises, without any video."""

import numpy as np
import pytest

from avfuse.pipeline.synth.law import Law, partner, plant

TIME_S = np.arange(0, 400, 0.02)


@pytest.fixture
def scripts():
    return [plant(np.random.default_rng(seed)) for seed in range(12)]


def correlation(a, b):
    return float(np.corrcoef(a, b)[0, 1])


def test_labels_are_bounded_and_vary(scripts):
    for script in scripts:
        truth = script.truth(TIME_S)
        for label in (truth.valence, truth.arousal):
            assert np.abs(label).max() < 1
            assert 0.3 < label.std() < 0.5
            assert abs(label.mean()) < 0.15


def test_signals_have_variance_1(scripts):
    for script in scripts:
        shown = np.concatenate([script.face(TIME_S), script.voice(TIME_S)], axis=1)
        np.testing.assert_allclose(shown.std(axis=0), 1, atol=0.03)
        np.testing.assert_allclose(shown.mean(axis=0), 0, atol=0.03)


def test_labels_are_the_sum_of_their_parts(scripts):
    truth = scripts[0].truth(TIME_S)
    offset = np.arctanh(truth.valence) - truth.own_valence - truth.joint_valence
    np.testing.assert_allclose(offset, scripts[0].offsets[0], atol=1e-9)
    np.testing.assert_allclose(truth.joint_arousal, -truth.joint_valence)


def test_one_modality_alone_says_little_about_the_joint_part(scripts):
    assert Law().face_alone <= 0.45
    for script in scripts:
        joint = script.joint(TIME_S)
        assert correlation(script.face(TIME_S)[:, 1], joint) < 0.45
        assert abs(correlation(script.face(TIME_S)[:, 0], joint)) < 0.1
        for shift_s in (0.0, script.law.lag_s, 1.0):
            voice = script.voice(TIME_S - shift_s)
            assert max(abs(correlation(voice[:, column], joint)) for column in (0, 1)) < 0.1


def test_the_voice_of_a_lag_ago_taken_from_the_face_is_the_joint_part():
    script = plant(np.random.default_rng(3), Law(lag_s=0.5))
    brow, vowel = script.face(TIME_S)[:, 1], script.voice(TIME_S - 0.5)[:, 1]
    assert correlation(brow / script.law.face_alone - script.law.noise * vowel, script.joint(TIME_S)) > 0.9999
    unlagged = script.voice(TIME_S)[:, 1]
    assert correlation(brow / script.law.face_alone - script.law.noise * unlagged, script.joint(TIME_S)) < 0.75


def test_signals_can_be_asked_for_at_any_time(scripts):
    times_s = np.array([0.1, 3.7, 2.2])
    np.testing.assert_array_equal(scripts[0].face(times_s)[1], scripts[0].face(times_s[1:2])[0])
    assert scripts[0].voice(times_s).shape == (3, 2)


def test_the_partner_shares_the_sound_alone(scripts):
    other = partner(scripts[0], np.random.default_rng(99))
    np.testing.assert_array_equal(other.voice(TIME_S), scripts[0].voice(TIME_S))
    assert abs(correlation(other.joint(TIME_S), scripts[0].joint(TIME_S))) < 0.1
    assert abs(correlation(other.face(TIME_S)[:, 0], scripts[0].face(TIME_S)[:, 0])) < 0.1


def test_the_same_generator_gives_the_same_script():
    assert plant(np.random.default_rng(5)) == plant(np.random.default_rng(5))
    assert plant(np.random.default_rng(5)) != plant(np.random.default_rng(6))
