"""What is broken in a store: every chunk is read again, every checksum computed again.

Tested by tests/features_store/records/test_verify.py.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...shell.text import counted, flat
from ..arrays.shard_reader import read_rows
from ..arrays.zarr_array import CHUNK_ERRORS, dims_of, open_array, row_slices
from ..arrays.zarr_json import array_folders, is_left, node_type, walk_groups
from ..schema import NODE_FILE, is_array_name, spec_of
from ..store import FeatureStore
from ..trial import Trial
from ..types import JsonValue, StoreMismatch
from .inputs import Inputs, read_inputs

if TYPE_CHECKING:
    import zarr


# A made-up length would name missing files for ever.
_MOST_PROBLEMS = 1000
_FACE = re.compile(r"/face\d+$")
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
        where = f"{self.trial}/{self.array}" if self.array else self.trial
        rows = f" rows {self.rows[0]}–{self.rows[1]}" if self.rows else ""
        return flat(f"{where}{rows}: {self.what}" + (f" ({self.file})" if self.file else ""))


def verify(store: FeatureStore) -> Iterator[Problem]:
    """Problems of all complete trials, and of groups whose zarr.json is broken; nothing where all is well.

    Memory holds one shard at a time.
    """
    for name, attributes in walk_groups(store.files):
        if attributes is None:
            file = store.files.location(f"{name}/{NODE_FILE}")
            yield Problem(name, None, None, file, "broken metadata; extract again")
        elif attributes.get("complete") is True:
            yield from _verify_trial(store, Trial(store.files, name, attributes))
            if not store.has_all_faces(name):
                yield Problem(name, None, None, None, "a face of it is missing; extract it again")
        elif is_left(store.files, name, attributes):
            yield Problem(name, None, None, None, "incomplete; extract it again")


def fix_commands(store: FeatureStore, damaged: Iterable[str]) -> list[str]:
    """The commands that make these trials anew, one for all that were made alike, as a shell takes them.

    The settings are those that the trials say, or most others of the store where they cannot be read any more. `…`
    stands for a folder or file that the store does not remember, or that is not on this machine.
    """
    groups, inputs = store.groups(), read_inputs(store.files)
    made = {name: _words(name, attributes, inputs) for name, attributes in groups.items()}
    told = Counter(made.values())
    usual = told.most_common(1)[0][0] if told else _words("", {}, inputs)
    alike: dict[str, list[str]] = {}
    for trial in sorted({_to_extract(store, groups, name) for name in damaged}):
        alike.setdefault(made.get(trial, usual), []).append(trial)
    return [command for words, trials in alike.items() for command in _fix_commands(store.path, words, trials)]


def _to_extract(store: FeatureStore, groups: Iterable[str], name: str) -> str:
    """The trial itself; of a broken folder, which is made anew with any trial in it, the first."""
    if name not in groups and not array_folders(store.files, name):
        name = next((each for each in groups if each.startswith(f"{name}/")), name)
    return _FACE.sub("", name)


def _fix_commands(store: str, words: str, trials: Sequence[str]) -> Iterator[str]:
    command = f"avfuse extract{words} --store {shlex.quote(store)} --overwrite"
    if plain := [trial for trial in trials if "," not in trial]:
        yield f"{command} --trials {shlex.quote(','.join(plain))}"
    if others := [trial for trial in trials if "," in trial]:
        yield f"printf '%s\\n' {shlex.join(others)} | {command} --trials-from /dev/stdin"


def _words(name: str, attributes: Mapping[str, JsonValue], inputs: Inputs) -> str:
    """Where a trial came from and what it was made with, as options of `extract`; what it does not say is left out."""
    settings, weights, source = (attributes.get(word) for word in ("settings", "weights", "source"))
    file = source.get("name") if isinstance(source, dict) else None
    words = [_folder("videos", inputs.videos, f"{name.rpartition('/')[0]}/{file}".lstrip("/") if file else "")]
    if attributes.get("trial_length_from") == "annotations":
        words.append(_folder("annotations", inputs.annotations))
    for key, value in settings.items() if isinstance(settings, dict) else ():
        if key == "aligned":
            words += [_folder(key, inputs.aligned)] if value else []
        elif value is not None:
            told = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            words.append(f"--{key.replace('_', '-')} {shlex.quote(told)}")
    for feature, made in weights.items() if isinstance(weights, dict) else ():
        if not isinstance(made, dict):
            continue
        name = str(made.get("same_as") or feature)
        given = inputs.weight_files.get(name, {})
        if made.get("untrained_seed") is not None:
            words.append(f"--untrained {made['untrained_seed']}")
        elif given and given.get("sha256") == made.get("sha256") and Path(given.get("path", "")).is_file():
            words.append(f"--weights {shlex.quote(name + '=' + given['path'])}")
        elif given is not None:
            words.append(f"--weights {name}=…/{shlex.quote(str(made.get('name')))}")
    return "".join(f" {word}" for word in dict.fromkeys(words))


def _folder(option: str, folder: str | None, file: str = "") -> str:
    """`--option FOLDER` where the folder, with this file in it, is on this machine."""
    is_here = folder is not None and Path(folder, file).exists()
    return f"--{option} {shlex.quote(folder) if folder is not None and is_here else '…'}"


def _verify_trial(store: FeatureStore, trial: Trial) -> Iterator[Problem]:
    checksums = trial.attributes.get("checksums", {})
    if not isinstance(checksums, dict):
        yield Problem(trial.name, None, None, None, "`checksums` is not a table of arrays")
        return
    for array, checksum in sorted(checksums.items()):
        if is_array_name(array):
            yield from _verify_array(store, trial, array, checksum)
        else:
            yield Problem(trial.name, array, None, None, "no array can be called so")


def _verify_array(store: FeatureStore, trial: Trial, array: str, checksum: object) -> Iterator[Problem]:
    place = store.files.location(f"{trial.name}/{array}")
    kind = node_type(store.files, f"{trial.name}/{array}")
    if kind != "array":
        what = "the array is missing" if kind is None else "broken metadata: no zarr array"
        yield Problem(trial.name, array, None, f"{place}/{NODE_FILE}" if kind else place, what)
        return
    try:
        values = open_array(place)
    except (OSError, StoreMismatch) as error:
        yield Problem(trial.name, array, None, f"{place}/{NODE_FILE}", f"broken metadata: {_short(error)}")
        return
    fault = _fault_of_metadata(values, trial, array)
    if fault:
        yield Problem(trial.name, array, None, f"{place}/{NODE_FILE}", fault)
        return
    yield from _verify_values(store, trial, array, values, checksum)


def _fault_of_metadata(values: zarr.Array[Any], trial: Trial, array: str) -> str | None:
    if values.shape[:1] != (trial.rows,):
        return f"shape {values.shape}, but the trial has {counted(trial.rows, 'row')}"
    spec = spec_of(array, values.ndim)
    wanted = ("frame", *spec.axes)
    if dims_of(values) != wanted:
        return f"axes {dims_of(values)} in place of {wanted}"
    found = {name: values.attrs.get(name) for name in ("units", "long_name")}
    return None if found == {"units": spec.units, "long_name": spec.long_name} else f"attributes {found}"


def _verify_values(
    store: FeatureStore, trial: Trial, array: str, values: zarr.Array[Any], checksum: object
) -> Iterator[Problem]:
    digest, found = hashlib.sha256(), 0
    for rows in row_slices(values.shape[0], (values.shards or values.chunks)[0]):
        file = _shard_file(store, trial, array, values, rows)
        if found >= _MOST_PROBLEMS:
            rest = (rows.start, values.shape[0])
            yield Problem(
                trial.name, array, rest, None, f"not looked at after {counted(found, 'problem')} of this array"
            )
            return
        if not store.files.is_file(file):
            found += 1
            yield Problem(trial.name, array, _pair(rows), store.files.location(file), "the file is missing")
            continue
        try:
            digest.update(read_rows(values, rows).tobytes())
        except _CHUNK_ERRORS:
            for broken, why in _broken_chunks(values, rows):
                found += 1
                yield Problem(trial.name, array, broken, store.files.location(file), why)
    if not found and digest.hexdigest() != checksum:
        yield Problem(trial.name, array, None, store.files.location(f"{trial.name}/{array}"), "wrong checksum")


def _broken_chunks(values: zarr.Array[Any], rows: slice) -> list[tuple[tuple[int, int], str]]:
    """Which inner chunks of a shard cannot be read, neighbours with the same fault as one."""
    broken: list[tuple[tuple[int, int], str]] = []
    for part in row_slices(rows.stop - rows.start, values.chunks[0]):
        chunk = slice(rows.start + part.start, rows.start + part.stop)
        try:
            read_rows(values, chunk)
        except _CHUNK_ERRORS as error:
            why = f"broken chunk: {_short(error.__cause__ or error)}"
            if broken and broken[-1][0][1] == chunk.start and broken[-1][1] == why:
                broken[-1] = ((broken[-1][0][0], chunk.stop), why)
            else:
                broken.append((_pair(chunk), why))
    # Read whole it failed, read in parts it did not: a disk that answers now and then.
    return broken or [(_pair(rows), "could be read only at the second try")]


def _shard_file(store: FeatureStore, trial: Trial, array: str, values: zarr.Array[Any], rows: slice) -> str:
    shard_rows = (values.shards or values.chunks)[0]
    number = (rows.start // shard_rows, *(0 for _ in values.shape[1:]))
    return f"{trial.name}/{array}/{values.metadata.encode_chunk_key(number)}"


def _pair(rows: slice) -> tuple[int, int]:
    return rows.start, rows.stop


def _short(error: BaseException) -> str:
    return flat(f"{type(error).__name__}: {error}")[:160]
