"""What weight files say of their tuning: found in the header alone, checked, and inherited by what is tuned further."""

import json

import pytest
import torch
from safetensors.torch import save_file

from avfuse.encoders.weights.resolve import WeightsInvalid, WeightSource, resolve
from avfuse.encoders.weights.tuning import KEY, read_tuning, record_of, with_base
from avfuse.features_store.schema import JsonValue


def written(path, metadata):
    save_file({"a": torch.zeros(1)}, path, metadata)
    return path


@pytest.mark.parametrize("words", ["[]", "{}", "no", json.dumps({"trials": "a"}), json.dumps({"trials": [1]})])
def test_metadata_in_other_words_are_refused(words, tmp_path):
    path = written(tmp_path / "w.safetensors", {KEY: words})
    with pytest.raises(WeightsInvalid, match=r"w\.safetensors: its metadata .* which trials the weights were tuned on"):
        resolve(["iresnet50"], {"iresnet50": path}, None)


def test_only_a_tuned_file_says_so(tmp_path):
    assert read_tuning(written(tmp_path / "other.safetensors", {"format": "pt"})) is None
    assert read_tuning(written(tmp_path / "none.safetensors", None)) is None
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"\x10")
    assert read_tuning(torn) is None  # whoever reads its tensors says so
    (tmp_path / "w.pth").write_bytes(b"PK")
    assert read_tuning(tmp_path / "w.pth") is None
    tuned = written(tmp_path / "w.safetensors", {KEY: json.dumps({"trials": ["a"], "fold": 2})})
    assert read_tuning(tuned) == {"trials": ["a"], "fold": 2}


def test_the_store_is_told_only_of_tuned_weights(tmp_path):
    plain = WeightSource("vggish", "w.pth", tmp_path / "w.pth", "00", "mine")
    assert "tuning" not in plain.as_attributes()
    path = written(tmp_path / "w.safetensors", {KEY: json.dumps({"trials": ["a"], "licence": "for research"})})
    source = resolve(["vggish"], {"vggish": path}, None)["vggish"]
    assert (source.name, source.licence) == ("w.safetensors", "for research")
    assert source.as_attributes()["tuning"] == {"trials": ["a"], "licence": "for research"}


def test_tuned_from_random_numbers_most_layers_are_still_random(tmp_path):
    for base, untrained in (
        ({"untrained": True, "untrained_seed": 0}, True),
        ({"untrained": False}, False),
        (None, False),
    ):
        path = written(tmp_path / "w.safetensors", {KEY: json.dumps({"trials": [], "base": base})})
        source = resolve(["vggish"], {"vggish": path}, None)["vggish"]
        assert source.is_untrained == source.as_attributes()["untrained"] == untrained


def test_trials_are_inherited(tmp_path):
    tuning: dict[str, JsonValue] = {"trials": ["b"], "licence": "for research"}
    source = WeightSource("vggish", "w", tmp_path / "w", "00", "for research", tuning=tuning)
    record = with_base({"trials": ["a", "c"], "fold": 1}, record_of(source))
    assert (record["trials"], record["licence"]) == (["a", "b", "c"], "for research")
    assert with_base({}, {})["trials"] == []
