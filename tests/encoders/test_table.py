"""The table of features: what each row says, and which settings are whose."""

import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from avfuse.encoders.contract import pip_command
from avfuse.encoders.table import DEFAULT_FEATURES, FEATURES, TABLE, entries_for, module_of, of_stream
from avfuse.features_store.entries import reserved_name
from avfuse.pipeline.config import ExtractConfig

CONFIG = ExtractConfig(features=tuple(TABLE))
LAYERED = {"wavlm_large", "wavlm_base", "hubert_large", "wav2vec2_large", "wav2vec2_emotion"}
STATES = {*LAYERED, "whisper_large"}
LIBRARY_FACES = {"clip_large", "eva02_large", "eva02_base", "mobilenetv3_large", "efficientnetv2_t"}
LIBRARY_FACES |= {"resnet50_ferplus", "senet50_ferplus"}
VISUAL = {"iresnet50", "iresnet50_map", "crop112", "crop48", "fake_face", *LIBRARY_FACES}
ALIGNED = {"vggish", "logmel_vgg", "mfcc", "logmel", "egemaps", "fake_sound"}
AUDIO = {*ALIGNED, *STATES, "speech"}
TEXT = {"bert", "fake_words"}
NETWORKS = {"iresnet50", "iresnet50_map", "vggish", "logmel_vgg", *LIBRARY_FACES, *STATES, "bert"}


@pytest.mark.parametrize(
    ("change", "others"),
    [
        ({"face": "left"}, {"faces"} | VISUAL),
        ({"detect_every": 1}, {"faces"} | VISUAL),
        ({"aligned": True}, {"faces"} | VISUAL),
        ({"missing_face": "zero"}, VISUAL),
        ({"audio_align": "end"}, ALIGNED),
        ({"audio_stream": 1}, AUDIO),
        ({"denoise": "dfn3"}, AUDIO),
        ({"video_stream": 1}, {"clock", "faces"} | VISUAL | AUDIO | TEXT),
        ({"vggish_output": "relu"}, {"vggish"}),
        ({"precision": "bf16"}, NETWORKS),
        ({"layers": "6-12"}, LAYERED),
    ],
)
def test_a_setting_changes_what_it_concerns_and_nothing_else(change, others):
    weights = {name: {"untrained_seed": 0} for name in NETWORKS}
    before = entries_for(CONFIG.features, asdict(CONFIG), weights)
    after = entries_for(CONFIG.features, asdict(replace(CONFIG, **change)), weights)
    assert {name for name in before if before[name]["fingerprint"] != after[name]["fingerprint"]} == others


def test_what_came_later_is_not_said_where_it_is_not_set():
    """Trials of before keep their fingerprints: these are of a store made before there was --denoise and --audio."""
    entries = entries_for(("mfcc", "logmel"), asdict(CONFIG), {})
    assert entries["mfcc"]["settings"] == {"audio_align": "start", "audio_stream": None}
    assert str(entries["mfcc"]["fingerprint"])[:16] == "fb9f8e892778c81c"
    assert str(entries["logmel"]["fingerprint"])[:16] == "d1ee40807f35d6f1"


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_weights_change_their_own_feature_alone(name):
    weights = {each: {"untrained_seed": 0} for each in NETWORKS}
    before = entries_for(CONFIG.features, asdict(CONFIG), weights)
    after = entries_for(CONFIG.features, asdict(CONFIG), {**weights, name: {"sha256": "ab"}})
    assert {each for each in before if before[each] != after[each]} == {name}


def test_whether_faces_are_looked_for_matters_to_no_crop_that_is_given():
    aligned = replace(CONFIG, aligned=True)
    entries = [entries_for(("crop48",), asdict(each), {}) for each in (aligned, replace(aligned, detect_every=1))]
    assert entries[0] == entries[1]


def test_features_alone_have_the_identity_that_they_have_together():
    together = entries_for(CONFIG.features, asdict(CONFIG), {})
    for name in CONFIG.features:
        assert entries_for((name,), asdict(CONFIG), {})[name] == together[name]
    assert "faces" not in entries_for(("mfcc",), asdict(CONFIG), {})


def test_every_feature_is_made_by_a_network_or_from_a_view():
    from avfuse.encoders.views import VIEWS

    for name, feature in TABLE.items():
        made = feature.network is not None or feature.load is not None
        assert sum([made, name in VIEWS, feature.view == "samples"]) == 1
        assert feature.row_shape is None or len(feature.spec.axes) == len(feature.row_shape)
    assert set(of_stream(CONFIG.features, "visual")) == VISUAL
    assert set(of_stream(CONFIG.features, "text")) == TEXT
    assert "fake_face" not in FEATURES
    assert DEFAULT_FEATURES == ("iresnet50", "vggish", "logmel_vgg")


@pytest.mark.parametrize("name", [name for name, made in TABLE.items() if made.load is not None])
def test_the_table_and_the_module_of_an_encoder_agree(name):
    made = TABLE[name]
    module, said = module_of(made)
    assert made.load is not None
    assert callable(getattr(module, made.load.partition(":")[2]))
    assert {"face": "visual", "audio": "audio", "words": "text"}[said.kind] == made.stream
    assert said.revision == made.revision
    assert not pip_command(said.needs, said.kind).endswith(said.needs), "no extra brings it"


def test_it_loads_no_torch():
    code = "import sys, avfuse.encoders.views; print({'torch', 'zarr'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_nobody_else_may_bring_a_feature_of_these_names():
    assert all(reserved_name(name) for name in TABLE)
    assert reserved_name("openface") is None
