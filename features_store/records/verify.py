"""What is broken in a store: every chunk is read again, every checksum computed again.

Tested by tests/features_store/records/test_verify.py.
"""

from __future__ import annotations

import hashlib
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...shell.text import counted, flat
from ..arrays.shard_reader import read_rows
from ..arrays.zarr_array import CHUNK_ERRORS, dims_of, open_array, row_slices
from ..arrays.zarr_json import array_folders, is_left, node_type, walk_groups
from ..entries import ABAW3_PREFIX, CLOCK, FACES, IMPORT, entries_of, source_of
from ..schema import NODE_FILE, JsonValue, StoreMismatch, is_array_name, is_stores_own, spec_of, whole_trial
from ..store import FeatureStore
from ..trial import Trial
from .provenance import Inputs, read_inputs

if TYPE_CHECKING:
    import zarr


# A made-up length would name missing files for ever.
_MOST_PROBLEMS = 1000
_CHUNK_ERRORS = (OSError, *CHUNK_ERRORS)


@dataclass(frozen=True)
class Problem:
    """One broken thing: `rows` [start, stop) where a chunk is broken, `file` where one is to blame."""

    trial: str
    array: str | None
    rows: tuple[int, int] | None
    file: str | None
    what: str

    def __str__(self) -> str:
        name = f"{self.trial}/{self.array}" if self.array else self.trial
        rows = f" rows {self.rows[0]}–{self.rows[1]}" if self.rows else ""
        return flat(f"{name}{rows}: {self.what}" + (f" ({self.file})" if self.file else ""))


def verify(store: FeatureStore) -> Iterator[Problem]:
    """Problems of all complete trials, and of groups whose zarr.json is broken; nothing where all is well.

    Memory holds one shard at a time.
    """
    for name, attributes in walk_groups(store.files):
        if attributes is None:
            file = store.files.location(f"{name}/{NODE_FILE}")
            yield Problem(name, None, None, file, "broken metadata; extract again")
        elif attributes.get("complete") is True:
            checksums = attributes.get("checksums", {})
            if not isinstance(checksums, dict):
                yield Problem(name, None, None, None, "`checksums` is not a table of arrays")
                checksums = {}
            trial = Trial(store.files, name, attributes)
            for array, checksum in sorted(checksums.items()):
                if is_array_name(array):
                    yield from _verify_array(store, trial, array, checksum)
                else:
                    yield Problem(name, array, None, None, "no array can have this name")
            if not store.has_all_faces(name):
                yield Problem(name, None, None, None, "a face of it is missing; extract it again")
        elif is_left(store.files, name, attributes):
            yield Problem(name, None, None, None, "incomplete; extract it again")


def _verify_array(store: FeatureStore, trial: Trial, array: str, checksum: object) -> Iterator[Problem]:
    location = store.files.location(f"{trial.name}/{array}")
    metadata = f"{location}/{NODE_FILE}"
    kind = node_type(store.files, f"{trial.name}/{array}")
    if kind is None:
        yield Problem(trial.name, array, None, location, "the array is missing")
        return
    if kind != "array":
        yield Problem(trial.name, array, None, metadata, "broken metadata: not a zarr array")
        return
    try:
        values = open_array(location)
    except (OSError, StoreMismatch) as error:
        yield Problem(trial.name, array, None, metadata, f"broken metadata: {_short(error)}")
        return
    spec = spec_of(array, values.ndim)
    axes, found = ("frame", *spec.axes), dims_of(values)
    words = {name: values.attrs.get(name) for name in ("units", "long_name")}
    wanted = {"units": spec.units, "long_name": spec.long_name}
    if not is_stores_own(array):  # a feature has words of its own, and more than one axis may have any names
        wanted = {name: word for name, word in words.items() if isinstance(word, str) and word}
        if values.ndim > 2 and len(set(found)) == values.ndim and found[0] == "frame" and all(found):
            axes = found
    if values.shape[:1] != (trial.rows,):
        fault = f"shape {values.shape}, but the trial has {counted(trial.rows, 'row')}"
        yield Problem(trial.name, array, None, metadata, fault)
    elif found != axes:
        yield Problem(trial.name, array, None, metadata, f"axes {found} instead of {axes}")
    elif words != wanted:
        yield Problem(trial.name, array, None, metadata, f"attributes {words}")
    else:
        yield from _verify_values(store, trial, array, values, checksum)


def _verify_values(
    store: FeatureStore, trial: Trial, array: str, values: zarr.Array[Any], checksum: object
) -> Iterator[Problem]:
    digest, problems = hashlib.sha256(), 0
    shard_rows = (values.shards or values.chunks)[0]
    for rows in row_slices(values.shape[0], shard_rows):
        if problems >= _MOST_PROBLEMS:
            rest = (rows.start, values.shape[0])
            what = f"not looked at after {counted(problems, 'problem')} of this array"
            yield Problem(trial.name, array, rest, None, what)
            return
        number = (rows.start // shard_rows, *(0 for _ in values.shape[1:]))
        key = f"{trial.name}/{array}/{values.metadata.encode_chunk_key(number)}"
        file = store.files.location(key)
        if not store.files.is_file(key):
            problems += 1
            yield Problem(trial.name, array, (rows.start, rows.stop), file, "the file is missing")
            continue
        try:
            digest.update(read_rows(values, rows).tobytes())
        except _CHUNK_ERRORS:
            for broken, why in _broken_chunks(values, rows):
                problems += 1
                yield Problem(trial.name, array, broken, file, why)
    if not problems and digest.hexdigest() != checksum:
        yield Problem(trial.name, array, None, store.files.location(f"{trial.name}/{array}"), "wrong checksum")


def _broken_chunks(values: zarr.Array[Any], rows: slice) -> list[tuple[tuple[int, int], str]]:
    """Which inner chunks of a shard cannot be read, neighbours with the same fault as one."""
    broken: list[tuple[tuple[int, int], str]] = []
    for part in row_slices(rows.stop - rows.start, values.chunks[0]):
        start, stop = rows.start + part.start, rows.start + part.stop
        try:
            read_rows(values, slice(start, stop))
        except _CHUNK_ERRORS as error:
            why = f"broken chunk: {_short(error.__cause__ or error)}"
            if broken and broken[-1][0][1] == start and broken[-1][1] == why:
                start = broken.pop()[0][0]
            broken.append(((start, stop), why))
    # Read whole it failed, read in parts it did not: a disk that answers now and then.
    return broken or [((rows.start, rows.stop), "could be read only at the second try")]


def _short(error: BaseException) -> str:
    return flat(f"{type(error).__name__}: {error}")[:160]


def fix_commands(store: FeatureStore, damaged: Iterable[str]) -> list[str]:
    """The commands that make these trials anew, one for all that were made alike, as a shell takes them.

    The settings are those that the trials say, or those of most others of the store where they cannot be read any
    more. `…` stands for a folder or file that the store does not remember, or that is not on this machine.
    """
    groups, inputs = store.groups(), read_inputs(store.files)
    options = {name: _options(name, attributes, inputs) for name, attributes in groups.items()}
    most_common = Counter(filter(None, options.values())).most_common(1)
    usual = most_common[0][0] if most_common else _options("", {}, inputs)
    trials = set()
    for name in damaged:
        trial = name
        if name not in groups and not array_folders(store.files, name):
            # A broken folder is made anew with any trial in it: with the first.
            trial = next((each for each in groups if each.startswith(f"{name}/")), name)
        trials.add(whole_trial(trial))
    alike: dict[str, list[str]] = {}
    for trial in sorted(trials):
        for words in options.get(trial, usual):
            alike.setdefault(words, []).append(trial)
    commands = []
    for words, names in alike.items():
        command = f"avfuse extract{words} --store {shlex.quote(store.path)} --overwrite"
        if plain := [name for name in names if "," not in name]:
            commands.append(f"{command} --trials {shlex.quote(','.join(plain))}")
        if others := [name for name in names if "," in name]:
            commands.append(f"printf '%s\\n' {shlex.join(others)} | {command} --trials-from /dev/stdin")
    imported: dict[str, list[str]] = {}
    for trial in sorted(trials):
        for feature, entry in entries_of(groups.get(trial, {})).items():
            if entry.get("made_from") == IMPORT:
                imported.setdefault(feature, []).append(trial)
    place = f"--store {shlex.quote(store.path)} --replace"
    if any(feature.startswith(ABAW3_PREFIX) for feature in imported):
        labels = "" if inputs.annotations is None else f" {_folder('annotations', inputs.annotations)}"
        commands.append(f"avfuse import-abaw3 …{labels} {place}")
    for feature, names in imported.items():
        if not feature.startswith(ABAW3_PREFIX):
            command = f"avfuse import-features --name {shlex.quote(feature)} --from … {place}"
            commands.append(f"{command} --trials {shlex.quote(','.join(names))}")
    return commands


def _options(name: str, attributes: Mapping[str, JsonValue], inputs: Inputs) -> tuple[str, ...]:
    """Where a trial came from and what its features were made with, as options of `extract`.

    One text for all features that one command can make, as for most trials; what a trial does not say is left out.
    None of a trial that was made by importing alone: there is no video to extract.
    """
    source, entries = attributes.get("source"), entries_of(attributes)
    if "nominal_rate_hz" in entries.get(CLOCK, {}).get("settings", {}):
        return ()
    file = source.get("name") if isinstance(source, dict) else None
    folders = [_folder("videos", inputs.videos, f"{name.rpartition('/')[0]}/{file}".lstrip("/") if file else "")]
    if attributes.get("trial_length_from") == "annotations":
        folders.append(_folder("annotations", inputs.annotations))
    # Features whose settings and seeds do not contradict each other.
    together: list[tuple[list[str], dict[str, Any], list[str]]] = []
    for feature, entry in entries.items():
        if "settings" not in entry or feature in (CLOCK, FACES) or entry.get("made_from") == IMPORT:
            continue
        settings: dict[str, Any] = dict(entry["settings"])
        above = entry.get("made_from")
        while isinstance(above, str) and source_of(above) in entries:
            settings |= entries[source_of(above)].get("settings", {})
            above = entries[source_of(above)].get("made_from")
        made = entry.get("weights") or {}
        has_code = settings.pop("encoder", None) is not None  # the hash of a user's own file
        if "untrained_seed" in made:
            settings["untrained"] = made["untrained_seed"]
        for features, known, _ in together:
            if all(known.get(key, value) == value for key, value in settings.items()):
                features.append(feature)
                known.update(settings)
                break
        else:
            together.append(([feature], settings, []))
        for features, _, weights in together:
            if feature in features and made.get("untrained_seed") is None and made:
                weights.append(_weights(feature, made, inputs))
            if feature in features and has_code:
                weights.append(f"--encoder {shlex.quote(feature)}=….py")
    found = []
    for features, settings, weights in together or [([], {}, [])]:
        words = [*folders, f"--features {shlex.quote(','.join(features))}"] if features else folders.copy()
        for key, value in settings.items():
            if key == "aligned":
                words += [_folder(key, inputs.aligned)] if value else []
            elif value is not None:
                words.append(f"--{key.replace('_', '-')} {shlex.quote(str(value))}")
        found.append("".join(f" {word}" for word in dict.fromkeys([*words, *weights]) if word))
    return tuple(found)


def _weights(feature: str, made: Mapping[str, Any], inputs: Inputs) -> str:
    network = str(made.get("same_as") or feature)
    given = inputs.weight_files.get(network, {})
    if given and given.get("sha256") == made.get("sha256") and Path(given.get("path", "")).is_file():
        return f"--weights {shlex.quote(network + '=' + given['path'])}"
    return "" if given is None else f"--weights {network}=…/{shlex.quote(str(made.get('name')))}"


def _folder(option: str, folder: str | None, file: str = "") -> str:
    """`--option FOLDER` where the folder, with this file in it, is on this machine."""
    is_there = folder is not None and Path(folder, file).exists()
    return f"--{option} {shlex.quote(folder) if folder is not None and is_there else '…'}"
