"""What runs need of an extraction: words of `extract`, weights, and what is not the run's own is refused by name."""

from dataclasses import asdict
from pathlib import Path

import pytest

from avfuse.apps.run.needs import Need, check_alike, passes, weights_for
from avfuse.encoders.table import entries_for
from avfuse.encoders.weights.resolve import WeightsMissing, WeightSource
from avfuse.features_store.records.provenance import lineage
from avfuse.pipeline.config import ExtractConfig
from avfuse.pipeline.extraction.provenance import weights_attributes


def need_of(name, config=None, weights=None):
    """What a run needs that has learned from a feature of these settings and weights."""
    config = config or ExtractConfig(features=(name,))
    entries = entries_for((name,), asdict(config), weights_attributes(config, weights or {}))
    return Need(name, Path("run"), lineage(entries, name), frozenset([str(entries[name]["fingerprint"])]))


def source(sha256="a" * 64, seed=None):
    return WeightSource("iresnet50", "own.pth", Path("own.pth"), None if seed is not None else sha256, "mine", seed)


class TestPasses:
    def test_one_call_for_features_that_share_settings(self):
        config = ExtractConfig(features=("crop48", "mfcc"), audio_align="end", face="left")
        needs = [need_of(name, config) for name in config.features]
        ((names, words),) = passes(needs)
        assert names == ("crop48", "mfcc")
        assert words[:2] == ["--features", "crop48,mfcc"]
        pairs = dict(zip(words[::2], words[1::2], strict=True))
        assert (pairs["--audio-align"], pairs["--face"]) == ("end", "left")
        assert "--aligned" not in pairs
        assert "--audio-stream" not in pairs  # None: as extract would

    def test_two_calls_where_they_do_not(self):
        sound = need_of("mfcc", ExtractConfig(features=("mfcc",), audio_align="end"))
        other = need_of("logmel", ExtractConfig(features=("logmel",), audio_align="start"))
        assert [names for names, _ in passes([sound, other])] == [("mfcc",), ("logmel",)]

    def test_random_weights_are_drawn_as_for_the_run(self):
        need = need_of("iresnet50", weights={"iresnet50": source(seed=7)})
        ((_, words),) = passes([need])
        assert dict(zip(words[::2], words[1::2], strict=True))["--untrained"] == "7"
        assert "3" in passes([need], untrained=3)[0][1]


class TestWeights:
    def test_missing_ones_are_named_by_what_the_run_says_of_them(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.delenv("AVFUSE_WEIGHTS", raising=False)
        need = need_of("iresnet50", weights={"iresnet50": source()})
        with pytest.raises(WeightsMissing, match=r"run needs the weights of its iresnet50 \(own.pth, sha256 aaaa"):
            weights_for([need], ["iresnet50"], ExtractConfig(features=("iresnet50",)), {})

    def test_those_of_another_hash_are_refused(self):
        config = ExtractConfig(features=("iresnet50",))
        need = need_of("iresnet50", config, {"iresnet50": source()})
        check_alike([need], ["iresnet50"], config, {"iresnet50": source()})
        with pytest.raises(ValueError, match="the run's own weights") as error:
            check_alike([need], ["iresnet50"], config, {"iresnet50": source("b" * 64)})
        assert f"weights: {'a' * 16} in the run, {'b' * 16} now" in str(error.value)
        assert "--weights iresnet50=FILE" in str(error.value)

    def test_features_that_no_network_makes_need_none(self):
        assert weights_for([need_of("mfcc")], ["mfcc"], ExtractConfig(features=("mfcc",)), {}) == {}
