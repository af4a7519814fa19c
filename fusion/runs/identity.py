"""Whether the run in a folder is the one that is asked for now: what differs, with both values.

    settings    lr: 0.001 in the run, 0.01 now
    trials      validation trials: 2 in the run, 3 now (only now: clip5)
    labels      labels of clip3: sha256 1f0c2ab4 in the run, 77e05c1d now
    features    vggish of clip3: precision: fp32 in the run, bf16 now

Tested by tests/fusion/runs/test_identity.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ...features_store.records.provenance import unlike
from ...shell.text import preview
from ..artifacts.folder import Description, Features, read_json
from ..config import RunConfig, TrainConfig
from ..settings import differences, spelled

_SHOWN = 12  # digits of a sha256 that are enough to distinguish two


@dataclass(frozen=True)
class Differences:
    """What differs, a line each: settings, trials of the fold, their labels, their features."""

    settings: tuple[str, ...] = ()
    trials: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    features: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def without_features(self) -> Differences:
        """What still differs if other features are allowed."""
        return replace(self, features=())

    def of(self, folder: Path) -> str:
        """The differences of the run in a folder, as the first half of a sentence."""
        what = [kind for kind, lines in vars(self).items() if lines]
        lines = "; ".join(line for kind in vars(self).values() for line in kind)
        if self.settings:
            return f"{folder} holds a run with other {' and '.join(what)} ({lines})"
        return f"{folder} was trained on other {' and '.join(what)} than there are now ({lines})"


def setting_differences(
    folder: Path, found: Description, config: TrainConfig, fold: int, run: RunConfig
) -> Differences:
    """Settings, except the number of epochs, which may grow; and of how it was run what changes more than rounding."""
    lines = differences(replace(found.config, max_epochs=config.max_epochs), config)
    if found.fold.number != fold:
        lines.append(_both("fold", found.fold.number, fold))
    if (folder / "environment.json").is_file():
        environment = read_json(folder, "environment.json")
        for name, value in (("precision", run.precision), ("compiled", run.compile)):
            if environment.get(name, value) != value:
                lines.append(_both(name, environment[name], value))
    return Differences(settings=tuple(lines))


def data_differences(found: Description, now: Description) -> Differences:
    """Trials, labels and features; of runs of older versions, which recorded less, what can be compared."""
    trials = []
    for side, word in (("train", "training"), ("validation", "validation")):
        before, after = getattr(found.fold, side), getattr(now.fold, side)
        only = [("in the run", set(before) - set(after)), ("now", set(after) - set(before))]
        if named := "; ".join(f"only {when}: {preview(sorted(names))}" for when, names in only if names):
            trials.append(f"{_both(f'{word} trials', len(before), len(after))} ({named})")
        elif before != after:
            trials.append(f"order of the {word} trials")
    labels = []
    changed = sorted(name for name, digest in found.labels.items() if now.labels.get(name, digest) != digest)
    if changed:
        one, other = (each.labels[changed[0]][:_SHOWN] for each in (found, now))
        labels.append(_both(f"labels of {preview(changed)}", f"sha256 {one}", other))
    elif not found.labels and found.labels_sha256 != now.labels_sha256:
        labels.append(_both("labels", f"sha256 {found.labels_sha256[:_SHOWN]}", now.labels_sha256[:_SHOWN]))
    if labels and found.annotations != now.annotations:
        labels.append(_both("annotations", found.annotations, now.annotations))
    return Differences((), tuple(trials), tuple(labels), tuple(_feature_differences(found.features, now.features)))


def _feature_differences(before: Features, after: Features) -> Iterator[str]:
    if not before.trials:
        for modality, counts in before.fingerprints.items():
            now = after.fingerprints.get(modality, counts)
            if set(counts) != set(now):
                names = (", ".join(name[:_SHOWN] for name in each) for each in (counts, now))
                yield _both(f"settings or weights of {modality}", *names)
    remade: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    changed = []
    for name, seen in before.trials.items():
        current = after.trials.get(name, seen)
        others = {
            modality: (fingerprint, current["fingerprints"].get(modality, fingerprint))
            for modality, fingerprint in seen["fingerprints"].items()
            if current["fingerprints"].get(modality, fingerprint) != fingerprint
        }
        for modality, (one, other) in others.items():
            remade[modality, one, other].append(name)
        if not others and current["sha256"] != seen["sha256"]:
            changed.append(name)
    for (modality, one, other), names_of in remade.items():
        # Settings and weights of both extractions or, if they are not recorded, the fingerprints.
        what = unlike(before.made.get(one, {}), after.made.get(other, {}), "in the run", "now")
        what = what or _both("settings or weights", one[:_SHOWN], other[:_SHOWN])
        yield f"{modality} of {preview(sorted(names_of))}: {what}"
    if changed:
        one, other = (each.trials[changed[0]]["sha256"][:_SHOWN] for each in (before, after))
        yield _both(f"features of {preview(sorted(changed))}, extracted again since", f"sha256 {one}", other)


def _both(what: str, before: object, after: object) -> str:
    return f"{what}: {spelled(before)} in the run, {spelled(after)} now"
