"""What each feature was made with: fingerprints, and the entries of trials that were written in format 1."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from avfuse.encoders.table import TABLE, entries_for
from avfuse.features_store.entries import entries_of, entry_of, weights_identity
from avfuse.pipeline.config import ExtractConfig

VGGISH = {"name": "v", "sha256": "ab", "untrained_seed": None}


def former(config: ExtractConfig, weights: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A trial's attributes as format 1 had them."""
    arrays = {array: "0" for name in config.features for array in (name, f"{name}_valid")}
    arrays |= dict.fromkeys(("time", "face_box", "face_landmarks", "face_score"), "0")
    settings = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}
    made = {"fingerprint": "f", "algorithm": 3, "settings": settings, "weights": weights, "versions": {"avfuse": "0.1"}}
    return {**made, "checksums": arrays, **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"audio_align": "end", "missing_face": "zero", "detect_every": 7, "precision": "bf16"},
        {"aligned": True, "video_stream": 1, "audio_stream": 2},
        {"vggish_output": "pca", "face": "all"},
    ],
)
def test_entries_of_format_1_are_those_of_today(changes):
    """A store of before is not old: what is done stays done."""
    config = ExtractConfig(features=("iresnet50", "vggish", "logmel_vgg", "mfcc", "logmel"), **changes)
    weights: dict[str, Any] = {"iresnet50": {"untrained_seed": 0}, "vggish": VGGISH, "logmel_vgg": VGGISH}
    if config.vggish_output == "pca":
        weights["vggish-pca"] = {"sha256": "cd"}
    now = dict(weights)
    if pca := now.pop("vggish-pca", None):
        now["vggish"] = {**VGGISH, "pca": pca}
    wanted = entries_for(config.features, asdict(config), now)
    found = entries_of(former(config, weights))
    assert {name: entry["fingerprint"] for name, entry in found.items()} == {
        name: entry["fingerprint"] for name, entry in wanted.items()
    }
    assert found["vggish"]["versions"] == {"avfuse": "0.1"}
    assert found["vggish"]["weights"]["sha256"] == "ab"


@pytest.mark.parametrize("changes", [{"algorithm": 2}, {"algorithm": None}, {"weights": {"vggish": {"sha256": "ac"}}}])
def test_other_numbers_of_format_1_are_others(changes):
    config = ExtractConfig(features=("vggish",))
    attributes = {**former(config, {"vggish": VGGISH}), **changes}
    wanted = entries_for(config.features, asdict(config), {"vggish": VGGISH})
    assert entries_of(attributes)["vggish"]["fingerprint"] != wanted["vggish"]["fingerprint"]


def test_settings_that_came_later_had_their_default_before():
    config = ExtractConfig(features=("mfcc",))
    attributes = former(config, {})
    attributes["settings"] = {"features": ["mfcc"]}
    assert (
        entries_of(attributes)["mfcc"]["fingerprint"]
        == entries_for(("mfcc",), asdict(config), {})["mfcc"]["fingerprint"]
    )


def test_a_trial_that_does_not_say_has_its_own_fingerprint():
    attributes = {"fingerprint": "planted", "settings": {"face": "left"}, "weights": {"voice": {"sha256": "ab"}}}
    arrays = {"voice": "0", "voice_valid": "1", "time": "2", "lone": "3"}
    assert entries_of({**attributes, "checksums": arrays}) == {
        "voice": {"fingerprint": "planted", "settings": {"face": "left"}, "weights": {"sha256": "ab"}}
    }


def test_entries_without_arrays_do_not_count():
    """An exported choice of features, or one that a run was adding when it was killed."""
    made = {"fingerprint": "f"}
    entries = dict.fromkeys(("clock", "faces", "mfcc", "vggish"), made)
    arrays = dict.fromkeys(("time", "mfcc", "mfcc_valid", "face_box"), "")
    assert set(entries_of({"features": entries, "checksums": arrays})) == {"clock", "mfcc"}
    arrays |= dict.fromkeys(("face_landmarks", "face_score"), "")
    assert set(entries_of({"features": entries, "checksums": arrays})) == {"clock", "faces", "mfcc"}
    assert set(entries_of({"features": entries, "faces": 2})) == set(entries)


@pytest.mark.parametrize("part", ["name", "revision", "settings", "weights", "made_from"])
def test_every_part_changes_the_fingerprint(part):
    above = {"clock": {"fingerprint": "c"}, "faces": {"fingerprint": "d"}}
    parts: dict[str, Any] = {
        "name": "x",
        "revision": 1,
        "settings": {"face": "left"},
        "weights": {"sha256": "ab"},
        "made_from": "clock",
    }
    others = {
        "name": "y",
        "revision": 2,
        "settings": {"face": "right"},
        "weights": {"sha256": "ac"},
        "made_from": "faces",
    }
    one = entry_of(**parts, entries=above)
    assert entry_of(**parts, entries=above) == one
    assert entry_of(**{**parts, part: others[part]}, entries=above)["fingerprint"] != one["fingerprint"]


def test_weights_are_the_same_by_content_and_seed():
    assert weights_identity(None) is weights_identity({}) is None
    assert weights_identity({"sha256": "ab", "name": "x", "licence": "MIT"}) == "ab"
    assert weights_identity({"sha256": None, "untrained_seed": 0}) == "untrained:0"
    assert weights_identity({"sha256": "ab", "pca": {"untrained_seed": 1}}) == "ab+untrained:1"


def test_names_of_the_table_are_those_of_its_features():
    assert [feature.name for feature in TABLE.values()] == list(TABLE)
    assert np.dtype(TABLE["iresnet50_map"].spec.dtype) == np.float16
