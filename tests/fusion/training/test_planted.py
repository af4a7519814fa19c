"""The trainer learns what is there, only where it is, and nothing where there is nothing.

All slow; that heads learn what is planted is asked by tests/fusion/models/test_every_head.py, too.
"""

from dataclasses import replace

import numpy as np
import pytest

from avfuse.features_store.labels.corpus import open_corpus
from avfuse.features_store.store import FeatureStore
from avfuse.fusion.artifacts.folder import write_description
from avfuse.fusion.config import RunConfig
from avfuse.fusion.folds.split import make_folds
from avfuse.fusion.models.crossattn import CrossAttentionSettings
from avfuse.fusion.runs.experiment import open_experiment
from avfuse.fusion.settings import preset
from avfuse.fusion.tasks.ccc import ccc
from avfuse.fusion.training.train import train

pytestmark = pytest.mark.slow

# S1 a quarter as wide and half as deep, so that five runs take a minute; benchmarks/planted.py has it in full.
SMALL = CrossAttentionSettings(
    lead_channels=(32, 32), other_channels=(16, 16), kernels=(3,), attention_width=64, hidden=64
)
WIDTHS = (64, 32, 32)
CONFIG = replace(preset("crossattn"), lr=3e-3, warmup_epochs=1, max_epochs=8, model=SMALL)


def scores(planted, folder, config=CONFIG):
    """P on the validation trials, and P of the joint part alone."""
    store, corpus = FeatureStore(planted.store), open_corpus(planted.annotations)
    manifest = make_folds(corpus)
    experiment = open_experiment(
        store, corpus, manifest, [0], config, RunConfig(device="cpu"), allow_other_features=False
    )
    described = experiment.describe(config, 0)
    write_description(folder, described, {})
    outcome = train(described, experiment.data, RunConfig(device="cpu"), folder)
    trials = described.fold.validation
    joint = np.concatenate([planted.joint[name] for name in trials])
    own = np.concatenate([experiment.data.sources[name].labels for name in trials]) - joint
    predicted = np.concatenate([outcome.predictions[name] for name in trials]) - own
    return outcome.report.p, np.mean([ccc(predicted[:, column], joint[:, column]) for column in range(2)])


@pytest.fixture(scope="module")
def planted(make_planted):
    return make_planted(widths=WIDTHS)


@pytest.fixture(scope="module")
def learned(planted, tmp_path_factory):
    return scores(planted, tmp_path_factory.mktemp("both"))


def test_what_is_planted_is_learned_on_unseen_subjects(learned):
    assert learned[0] >= 0.90


@pytest.mark.parametrize(
    "modalities",
    [("iresnet50",), ("vggish", "logmel_vgg")],
    ids=["visual", "audio"],
)
def test_one_modality_does_not_tell_what_needs_both(planted, learned, modalities, tmp_path):
    alone = scores(planted, tmp_path, replace(CONFIG, modalities=modalities))
    assert alone[1] <= learned[1] - 0.15
    assert alone[0] <= learned[0] - 0.15


def test_labels_of_other_trials_teach_nothing(make_planted, tmp_path):
    shuffled = make_planted(widths=WIDTHS, shuffled=True)
    assert abs(scores(shuffled, tmp_path, CONFIG)[0]) < 0.1


def test_a_voice_that_leads_the_face_is_found_within_reach(make_planted, tmp_path):
    """Attention over the whole window cannot tell when; over half a second to either side it can."""
    planted = make_planted(widths=WIDTHS, law="lag")
    within_reach = replace(CONFIG, max_epochs=8, model=replace(SMALL, attention_reach=12))
    assert scores(planted, tmp_path, within_reach)[0] >= 0.90
