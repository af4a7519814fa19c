"""What runs need of an extraction: which features, made how, with which weights; as words of `avfuse extract`.

    features.json of a run ─► entries of its features ─► settings ─► avfuse extract --features … --face … --precision …
                                              └─ fingerprint = fingerprint of what would be made now?  else a refusal

A run of an older version does not say it; its store does, as long as it is there.
Tested by tests/apps/run/test_needs.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...encoders.table import feature
from ...encoders.weights.resolve import WeightsMissing, WeightSource, resolve, weight_names
from ...features_store.entries import entries_of
from ...features_store.records.provenance import lineage, making, unlike
from ...features_store.store import FeatureStore
from ...fusion.artifacts.folder import Description
from ...pipeline.config import ExtractConfig
from ...pipeline.extraction.provenance import wanted_entries

Lineage = Mapping[str, Mapping[str, Any]]

# Settings that an entry has, and the options of `extract` that set them.
_OPTIONS = {
    "face": "--face",
    "detect_every": "--detect-every",
    "missing_face": "--missing-face",
    "audio_align": "--audio-align",
    "vggish_output": "--vggish-output",
    "precision": "--precision",
    "layers": "--layers",
    "denoise": "--denoise",
    "video_stream": "--video-stream",
    "audio_stream": "--audio-stream",
}
# Settings that say that something was given beside the videos, and how it is given again.
_BESIDE = {
    "aligned": "crops in place of face detection: --aligned DIR",
    "audio_file": "sound files in place of the videos' own sound: --audio DIR",
}
_HASH_SHOWN = 16


@dataclass(frozen=True)
class Need:
    """A feature that runs have learned from: its `entries`, and every fingerprint that they have learned from.

    `run`: the folder of the (first) run, for messages.
    """

    name: str
    run: Path
    entries: Lineage
    fingerprints: frozenset[str]

    @property
    def seed(self) -> int | None:
        """The seed of its weights, where they were random; else None."""
        seed = self.weights.get("untrained_seed")
        return seed if isinstance(seed, int) else None

    @property
    def settings(self) -> dict[str, str | int]:
        """Words of `extract` by setting, as far as they are not left to it; `untrained` is a seed."""
        found: dict[str, str | int] = {}
        for entry in self.entries.values():
            given = entry.get("settings")
            for key, value in given.items() if isinstance(given, Mapping) else ():
                if key in _OPTIONS and value is not None:
                    found[key] = value
        return found if self.seed is None else {**found, "untrained": self.seed}

    @property
    def weights(self) -> Mapping[str, Any]:
        """What the store said of its weights: name, sha256, licence, seed; empty without any."""
        weights = self.entries.get(self.name, {}).get("weights")
        return weights if isinstance(weights, Mapping) else {}

    def beside(self, key: str) -> bool:
        """Whether it was made from something that was given beside the videos."""
        return any((entry.get("settings") or {}).get(key) for entry in self.entries.values())


def needs_of(runs: Sequence[tuple[Path, Description]]) -> list[Need]:
    """What these runs need together, in the order in which they name it.

    Raises ValueError for a feature that cannot be extracted from videos, where nobody says how it was made, and where
    two runs need one feature made in two ways.
    """
    found: dict[str, Need] = {}
    for folder, described in runs:
        for name in described.config.inputs:
            fingerprints = frozenset(described.features.fingerprints.get(name, {}))
            need = Need(
                name, folder, described.features.entries.get(name) or _asked(folder, described, name), fingerprints
            )
            _check_own(need)
            other = found.setdefault(name, need)
            if not other.fingerprints & fingerprints:
                differences = unlike(making(other.entries, name), making(need.entries, name), "in one", "in the other")
                raise ValueError(
                    f"{other.run} and {folder} have learned from different {name} ({differences}): predict with each "
                    "of them by itself"
                )
    return list(found.values())


def _asked(folder: Path, described: Description, name: str) -> Lineage:
    """How a feature was made, by the store of a run that does not say it itself."""
    features = described.features
    try:
        store = FeatureStore(features.store)
        for trial in features.trials or store.trials():
            entries = entries_of(store.attributes(trial) or {})
            if entries.get(name, {}).get("fingerprint") in features.fingerprints.get(name, {}):
                return lineage(entries, name)
    except (OSError, ValueError):
        pass
    names = ",".join(described.config.inputs)
    raise ValueError(
        f"{folder} does not say how its {name} was extracted, as runs of this version do, and its store "
        f"({features.store}) is not there to say it. Train it again, or extract with the settings of that store "
        f"(`avfuse extract --videos DIR --features {names} --store STORE`) and use `avfuse predict --run {folder} "
        "--store STORE`"
    )


def _check_own(need: Need) -> None:
    try:
        feature(need.name)
    except ValueError as error:
        encoder = any("encoder" in (entry.get("settings") or {}) for entry in need.entries.values())
        how = f"give its file by --encoder {need.name}=FILE.py" if encoder else "it was imported: extract and import it"
        more = "" if encoder else f" into a store, then `avfuse predict --run {need.run} --store STORE`"
        raise ValueError(f"{need.run} has learned from {need.name}, which avfuse does not make: {how}{more}") from error


def passes(needs: Iterable[Need], untrained: int | None = None) -> list[tuple[tuple[str, ...], list[str]]]:
    """Features with the words of `extract` that make them: as few calls as their settings allow, mostly one.

    `untrained`: a seed in place of those that the runs have learned from.
    """
    groups: list[tuple[list[str], dict[str, str | int]]] = []
    for need in needs:
        wanted = need.settings if untrained is None else {**need.settings, "untrained": untrained}
        for names, settings in groups:
            if all(settings.get(key, value) == value for key, value in wanted.items()):
                names.append(need.name)
                settings.update(wanted)
                break
        else:
            groups.append(([need.name], dict(wanted)))
    found = []
    for names, settings in groups:
        words = ["--features", ",".join(names)]
        for key, value in settings.items():
            words += [_OPTIONS.get(key, f"--{key}"), str(value)]
        found.append((tuple(names), words))
    return found


def weights_for(
    needs: Sequence[Need],
    names: Sequence[str],
    config: ExtractConfig,
    given: Mapping[str, Path],
    untrained: int | None = None,
) -> dict[str, WeightSource]:
    """The weights of these features, found as `extract` finds them; the random ones are drawn as for the run.

    `given`: files by feature; `untrained`: a seed for all that have none.

    Raises WeightsMissing naming those that the runs have learned from.
    """
    by_name = {need.name: need for need in needs}
    found: dict[str, WeightSource] = {}
    for name in names:
        weights = by_name[name].weights
        seed = by_name[name].seed if untrained is None else untrained
        try:
            wanted = weight_names((name,), config.vggish_output if name == "vggish" else "raw")
            found |= resolve(wanted, given, seed)
        except WeightsMissing as error:
            sha256 = str(weights.get("sha256"))[:_HASH_SHOWN]
            which = f"{weights.get('name')}, sha256 {sha256}…" if weights else "which its store does not name"
            raise WeightsMissing(f"{by_name[name].run} needs the weights of its {name} ({which}): {error}") from error
    return found


def check_alike(
    needs: Sequence[Need], names: Sequence[str], config: ExtractConfig, weights: Mapping[str, WeightSource]
) -> None:
    """Raise ValueError where what would be extracted now is not what the runs have learned from: what differs, and how
    to give the run's own.
    """
    now = wanted_entries(config, weights, {})
    for need in needs:
        name = need.name
        if name not in names or now[name]["fingerprint"] in need.fingerprints:
            continue
        before, today = making(need.entries, name), making(now, name)
        differences = unlike(before, today, "in the run", "now") or "by their fingerprints"
        ways = [how for key, how in _BESIDE.items() if need.beside(key) and before.get(key) != today.get(key)]
        if before.get("weights") != today.get("weights"):
            own = f"{need.weights.get('name')}, sha256 {str(need.weights.get('sha256'))[:_HASH_SHOWN]}…"
            ways.append(f"the run's own weights ({own}): --weights {feature(name).network}=FILE")
        give = f" Give {'; '.join(ways)}." if ways else ""
        raise ValueError(
            f"{need.run} has learned from {name} of other settings or weights ({differences}).{give} "
            "--allow-other-features goes on all the same"
        )
