"""What each feature of a trial was made with: entries by name, and the fingerprint that tells two makings apart.

    features: {clock:  {fingerprint, settings}
               faces:  {fingerprint, settings, made_from: clock}
               vggish: {fingerprint, settings, made_from: audio, weights: {name, sha256, …}, versions}}

A fingerprint is the hash of the settings that change the rows, of the weights, and of the fingerprint of what the
feature is made from. Trials of format 1 had one fingerprint for all: their entries are worked out from the settings
and weights that they recorded. Tested by tests/features_store/test_entries.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from .schema import TIME, VALID_SUFFIX, JsonValue

ENTRIES = "features"
CLOCK, FACES, AUDIO, WORDS = "clock", "faces", "audio", "words"
IMPORT = "import"  # made elsewhere: avfuse import-features, avfuse import-abaw3
ABAW3_PREFIX = "abaw3_"  # of the names that avfuse import-abaw3 gives
FACE_ARRAYS = ("face_box", "face_landmarks", "face_score")
# Attributes of format 1 that are the entries' now.
FORMER = ("fingerprint", "algorithm", "settings", "weights", "versions")

_FORMER_ALGORITHM = 3  # what revision 1 of everything computes
_FORMER_SOURCES: dict[str, tuple[str | None, tuple[str, ...]]] = {
    CLOCK: (None, ("video_stream",)),
    FACES: (CLOCK, ("face", "detect_every", "aligned")),
}
_FORMER_FEATURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "iresnet50": (FACES, ("missing_face", "precision")),
    "vggish": (AUDIO, ("audio_align", "audio_stream", "precision", "vggish_output")),
    "logmel_vgg": (AUDIO, ("audio_align", "audio_stream", "precision")),
    "mfcc": (AUDIO, ("audio_align", "audio_stream")),
    "logmel": (AUDIO, ("audio_align", "audio_stream")),
}
# What avfuse's own table of features has beside them, which nobody else may call theirs.
_LATER_FEATURES = (
    *("iresnet50_map", "crop112", "crop48", "fake_face", "fake_sound", "fake_words"),
    *("clip_large", "eva02_large", "eva02_base", "resnet50_ferplus", "senet50_ferplus", "mobilenetv3_large"),
    *("efficientnetv2_t", "wavlm_large", "wavlm_base", "hubert_large", "wav2vec2_large", "wav2vec2_emotion"),
    *("whisper_large", "egemaps", "speech", "bert"),
)
_PREFIXES = ("timm:", "hear:")
# Settings that came with a later version had these values before.
_FORMER_DEFAULTS = {
    "face": "largest",
    "detect_every": 30,
    "missing_face": "repeat",
    "audio_align": "start",
    "vggish_output": "raw",
    "precision": "fp32",
    "aligned": False,
}


def entry_of(
    name: str,
    revision: int | str,
    settings: Mapping[str, Any],
    weights: Mapping[str, Any] | None,
    made_from: str | None,
    entries: Mapping[str, Mapping[str, Any]],
) -> dict[str, JsonValue]:
    """The entry of a feature, or of what features are made from; `entries` has that of what it is made from itself.

    Sound and words have no entry: they are read anew, at the times of the clock.
    """
    above = entries[source_of(made_from)] if made_from else None
    identity = {
        "name": name,
        "revision": revision,
        "settings": dict(settings),
        "weights": weights_identity(weights),
        "made_from": above["fingerprint"] if above else None,
    }
    entry: dict[str, JsonValue] = {
        "fingerprint": fingerprint_of(identity),
        "revision": revision,
        "settings": dict(settings),
    }
    entry |= {"made_from": made_from} if made_from else {}
    return {**entry, "weights": dict(weights)} if weights else entry


def fingerprint_of(identity: Mapping[str, JsonValue]) -> str:
    """The hash of all that changes the rows of a feature, hexadecimal: of the words in the order of the alphabet."""
    return hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()


def source_of(made_from: str) -> str:
    """The entry that what is made from this hangs on."""
    return CLOCK if made_from in (AUDIO, WORDS) else made_from


def weights_identity(weights: Mapping[str, Any] | None) -> str | None:
    """What makes two weights the same: sha256 of the file or `untrained:SEED`, those of a PCA after it with a plus.

    None without weights.
    """
    if not weights:
        return None
    own = str(weights.get("sha256") or f"untrained:{weights.get('untrained_seed')}")
    pca = weights.get("pca")
    return f"{own}+{weights_identity(pca)}" if isinstance(pca, dict) else own


def entries_of(attributes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A trial's entries by name, whatever format it was written in; only of what there are arrays of.

    A feature that does not say what it was made with has the trial's own fingerprint, settings and weights, if any.
    """
    arrays = attributes.get("checksums")
    arrays = arrays if isinstance(arrays, dict) else {}
    stored = attributes.get(ENTRIES)
    entries = _former_entries(attributes)
    if isinstance(stored, dict):
        entries = {name: entry for name, entry in stored.items() if isinstance(entry, dict)}
    there = {name.removesuffix(VALID_SUFFIX) for name in arrays if name.endswith(VALID_SUFFIX)} & set(arrays)
    for name in there - set(entries):
        entries[name] = _own(attributes, name)
    is_container = "faces" in attributes and not arrays
    kept = there | {name for name, parts in ((CLOCK, {TIME}), (FACES, {*FACE_ARRAYS})) if parts <= set(arrays)}
    return {name: entry for name, entry in entries.items() if is_container or name in kept}


def _own(attributes: Mapping[str, Any], feature: str) -> dict[str, Any]:
    settings, weights = attributes.get("settings"), attributes.get("weights")
    own: dict[str, Any] = {"fingerprint": str(attributes.get("fingerprint"))}
    if isinstance(settings, dict) and not isinstance(attributes.get(ENTRIES), dict):
        own["settings"] = {name: value for name, value in settings.items() if name != "features"}
    of_feature = weights.get(feature) if isinstance(weights, dict) else None
    return {**own, "weights": of_feature} if isinstance(of_feature, dict) else own


def _former_entries(attributes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    settings, weights = attributes.get("settings"), attributes.get("weights")
    if not isinstance(settings, dict) or not isinstance(settings.get("features"), list):
        return {}
    values = {**_FORMER_DEFAULTS, **settings}
    algorithm = attributes.get("algorithm", "not recorded")
    revision: int | str = 1 if algorithm == _FORMER_ALGORITHM else f"algorithm {algorithm}"
    made = weights if isinstance(weights, dict) else {}
    versions = {"versions": attributes["versions"]} if "versions" in attributes else {}
    features = [name for name in settings["features"] if name in _FORMER_FEATURES]
    entries: dict[str, dict[str, Any]] = {}
    for name, (above, options) in _FORMER_SOURCES.items():
        if name == CLOCK or any(_FORMER_FEATURES[feature][0] == name for feature in features):
            used = {each: values.get(each) for each in options if each != "detect_every" or not values["aligned"]}
            entries[name] = {**entry_of(name, revision, used, None, above, entries), **versions}
    for name in features:
        made_from, options = _FORMER_FEATURES[name]
        used = {each: values.get(each) for each in options}
        of_name = dict(made[name]) if isinstance(made.get(name), dict) else None
        if of_name and used.get("vggish_output") == "pca" and isinstance(made.get("vggish-pca"), dict):
            of_name["pca"] = made["vggish-pca"]
        entries[name] = {**entry_of(name, revision, used, of_name, made_from, entries), **versions}
    return entries


def arrays_of(feature: str) -> tuple[str, ...]:
    """The arrays that are a feature's own."""
    return feature, f"{feature}{VALID_SUFFIX}"


def reserved_name(name: str) -> str | None:
    """Why what was made elsewhere cannot have this name; None where it can."""
    if name in (CLOCK, FACES, AUDIO, WORDS, TIME, *_FORMER_FEATURES, *_LATER_FEATURES) or name.startswith(_PREFIXES):
        return "that is one of avfuse's own"
    if name.endswith(VALID_SUFFIX):
        return f"names that end with {VALID_SUFFIX!r} are those of masks"
    return "names that begin with 'face_' are those of avfuse's own boxes" if name.startswith("face_") else None
