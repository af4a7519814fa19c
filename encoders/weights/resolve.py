"""Which weights a feature uses: found, hashed, named; torch is imported when a network is loaded.

    --weights FEATURE=FILE, else --untrained SEED, else $AVFUSE_WEIGHTS, else the cache, else WeightsMissing

The weights of an encoder from a library are a folder, `FEATURE/` in those of `$AVFUSE_WEIGHTS` and the cache
(`timm/NAME/` for `timm:NAME`); one of the user's own has whatever --weights gives it, or nothing.
Tested by tests/encoders/weights/test_resolve.py.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ...features_store.disk.atomic import sha256_of
from ...features_store.schema import JsonValue
from ...shell.text import one_line
from .. import plugins
from ..table import TABLE, VggishOutput, feature
from .folder import check_folder, folder_sha256, licence_of
from .registry import PCA, REGISTRY, WeightFile
from .tuning import read_tuning

if TYPE_CHECKING:
    from .read import Network, Pca


_NETWORKS = tuple(dict.fromkeys(each.network for each in TABLE.values() if each.network))
_FILE_NETWORKS = tuple(
    dict.fromkeys(each.network for each in TABLE.values() if each.network and each.weights == "file")
)
WEIGHT_NAMES = (*_NETWORKS, PCA)
SUFFIXES = (".pth", ".pt", ".safetensors", ".onnx")
Read = TypeVar("Read")
_ELSE = {each.network: each.else_network for each in TABLE.values() if each.network and each.else_network}


class WeightsMissing(RuntimeError):  # noqa: N818 - named by docs and users' scripts
    """No weights were found for a feature; the message says how to get them."""


class WeightsInvalid(ValueError):  # noqa: N818
    """A weight file cannot be used; the message names it."""


@dataclass(frozen=True)
class WeightSource:
    """Where a feature's weights come from; without a path they are random numbers of `untrained_seed`.

    `tuning`: what a file that `avfuse finetune` wrote says of itself, the trials that it learned from among it.
    """

    feature: str
    name: str
    path: Path | None
    sha256: str | None
    licence: str
    untrained_seed: int | None = None
    same_as: str | None = None
    tuning: Mapping[str, JsonValue] | None = field(default=None, hash=False)

    def as_attributes(self) -> dict[str, JsonValue]:
        """What the store's `weights` attribute holds for this feature: all but the path on this machine."""
        kept = {key: value for key, value in asdict(self).items() if key not in ("feature", "path", "tuning")}
        tuned = {} if self.tuning is None else {"tuning": dict(self.tuning)}
        return {**kept, "untrained": self.is_untrained, **tuned}

    @property
    def is_untrained(self) -> bool:
        """Whether they are random numbers, or were tuned from such: most of their layers then still are."""
        base = self.tuning.get("base") if self.tuning is not None else None
        return self.untrained_seed is not None or (isinstance(base, dict) and base.get("untrained") is True)


def weight_names(features: Sequence[str], vggish_output: VggishOutput) -> tuple[str, ...]:
    """What `resolve` must find for these features: the names of their networks, VGGish's PCA where it is used."""
    networks = tuple(dict.fromkeys(network for name in features if (network := feature(name).network)))
    return (*networks, PCA) if vggish_output == "pca" and "vggish" in features else networks


def form_of(name: str) -> str | None:
    """Whether these weights are a `file`, a `folder`, or `optional`; None where nothing takes weights of this name."""
    if name == PCA or name in _FILE_NETWORKS:
        return "file"
    try:
        made = feature(name)
    except ValueError:
        if ":" in name or plugins.find(name) is not None:
            raise
        return None
    return made.weights if made.network == name else None


def hash_of_weights(source: WeightSource) -> str:
    """Hash of what a source's path holds now. Raises OSError, ValueError."""
    path = source.path
    if path is None:
        raise ValueError(f"the weights of {source.feature} are not a file")
    if not path.is_dir():
        return sha256_of(path)
    return folder_sha256(path, everything=form_of(source.feature) == "optional")


def cache_folder() -> Path:
    """Where fetched weights are kept: `$XDG_CACHE_HOME/avfuse/weights`, else `~/.cache/avfuse/weights`.

    Raises ValueError where there is neither the variable nor a home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avfuse" / "weights"
    except RuntimeError as error:  # an unknown user without HOME, as in containers
        raise ValueError(
            "there is no home folder to keep weights in: set HOME or XDG_CACHE_HOME, or AVFUSE_WEIGHTS=FOLDER"
        ) from error


def weight_folders() -> list[Path]:
    """Where weights are looked for: `$AVFUSE_WEIGHTS`, then the cache.

    Raises ValueError where the first is not a folder.
    """
    given = os.environ.get("AVFUSE_WEIGHTS")
    folders = [Path(os.path.expanduser(given))] if given else []
    if given and not folders[0].is_dir():
        raise ValueError(f"AVFUSE_WEIGHTS={given} is not a folder")
    with suppress(ValueError):  # without a home folder there is no cache
        folders.append(cache_folder())
    return folders


def local_path(file: WeightFile) -> Path | None:
    """Where a published file is on this machine; None while it is not there. Its content is not looked at."""
    paths = (folder / file.file_name for folder in weight_folders())
    return next((path for path in paths if path.is_file()), None)


def _folder_name(name: str) -> str:
    """Where a feature's folder is looked for, below those of `weight_folders`."""
    return name.replace(":", "/")


def local_folder(name: str) -> Path | None:
    """Where a feature's folder of weights is on this machine; None while it is not there. It is not looked into."""
    paths = (folder / _folder_name(name) for folder in weight_folders())
    return next((path for path in paths if path.is_dir()), None)


def is_damaged(path: Path, file: WeightFile, hash_of: Callable[[Path], str] = sha256_of) -> bool:
    """Whether a file under a published name is not the published one, as far as its hash is known."""
    return file.sha256_prefix is not None and not file.matches(hash_of(path))


def resolve(features: Sequence[str], given: Mapping[str, Path], untrained_seed: int | None) -> dict[str, WeightSource]:
    """The weights of every feature that needs some (`vggish-pca` counts as one), hashed but not loaded.

    `given` are the files of `--weights`. Raises WeightsMissing naming every feature without weights,
    ValueError for an unknown name, WeightsInvalid for a damaged file in a folder, OSError for one that cannot
    be read.
    """
    for name in (*features, *given):
        # A misspelt --weights must not end in other weights without a word.
        if form_of(name) is None and (name in given or name not in TABLE):
            raise ValueError(f"no weights are used for {name!r}, only for {', '.join(WEIGHT_NAMES)}, and plug-ins")
    hash_of = functools.cache(sha256_of)
    needed = [name for name in dict.fromkeys(features) if form_of(name) is not None]
    sources = {
        name: _find(name, given, untrained_seed, hash_of)
        if form_of(name) == "file"
        else _find_folder(name, given, untrained_seed)
        for name in needed
    }
    found = {name: source for name, source in sources.items() if source is not None}
    if folders := [name for name in needed if name not in found and form_of(name) == "folder"]:
        raise WeightsMissing(
            f"no weights for {', '.join(folders)}: give `--weights {folders[0]}=DIR`, a folder with config.json and "
            f"model.safetensors, or put it at AVFUSE_WEIGHTS/{_folder_name(folders[0])}/; `avfuse weights list` says "
            "where from. For tests and demos only: `--untrained SEED`, random numbers"
        )
    if missing := [name for name in needed if name not in found and form_of(name) == "file"]:
        wanted = {_ELSE.get(name, name) for name in missing}
        files = [file for file in REGISTRY.values() if file.feature in wanted]
        fetched = ", ".join(file.name for file in files if file.url)
        ways = f"Three ways: `avfuse weights fetch NAME` ({fetched}); " if fetched else "Two ways: "
        raise WeightsMissing(
            f"no weights for {', '.join(missing)}. {ways}`--weights FEATURE=FILE`; AVFUSE_WEIGHTS=FOLDER with "
            f"FEATURE.pth or the published files in it. "
            f"Licences: {'; '.join(f'{file.name}: {file.licence}' for file in files)}. "
            f"For tests and demos only: `--untrained SEED`, random numbers"
        )
    return found


def files_given(sources: Mapping[str, WeightSource], given: Collection[str]) -> dict[str, dict[str, str] | None]:
    """{name of --weights: path and sha256 of its file, None where it was found without}; untrained ones are left out.

    `given`: the names that --weights had.
    """
    files: dict[str, dict[str, str] | None] = {}
    for network, source in sources.items():
        if source.path is not None:
            name = source.same_as or network
            file = {"path": os.path.abspath(source.path), "sha256": str(source.sha256)}
            files[name] = file if name in given else None
    return files


def load_network(source: WeightSource) -> Network:
    """Read (or draw) a feature's network. Raises WeightsInvalid naming the file and what is wrong with it."""
    from .read import read_network, untrained_network  # noqa: PLC0415 - torch only where it is used

    if source.path is None:
        return untrained_network(source.feature, source.untrained_seed or 0)
    return _reading(source.path, lambda path: read_network(path, source.feature))


def load_pca(source: WeightSource) -> Pca:
    """Read (or draw) VGGish's PCA. Raises WeightsInvalid naming the file."""
    from .read import read_pca, untrained_pca  # noqa: PLC0415 - torch only where it is used

    if source.path is None:
        return untrained_pca(source.untrained_seed or 0)
    return _reading(source.path, read_pca)


def _reading(path: Path, read: Callable[[Path], Read]) -> Read:
    try:
        return read(path)
    except ValueError as error:
        raise WeightsInvalid(f"{path}: {error}") from error


def _find(
    feature: str, given: Mapping[str, Path], seed: int | None, hash_of: Callable[[Path], str]
) -> WeightSource | None:
    if feature in given:
        return _from_file(feature, Path(given[feature]), hash_of)
    if seed is not None:  # before the folders, so that it means the same on every machine
        return WeightSource(feature, "untrained", None, None, "none: random numbers", untrained_seed=seed)
    published = {file.file_name: file for file in REGISTRY.values()}
    names = [f"{feature}{suffix}" for suffix in SUFFIXES]
    names += [name for name, file in published.items() if file.feature == feature]
    for folder in weight_folders():
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is None:
            continue
        known = published.get(path.name)
        if known is not None and is_damaged(path, known, hash_of):
            raise WeightsInvalid(
                f"{path} has sha256 {hash_of(path)}, the published one {known.sha256_prefix}: damaged, "
                f"or another. Run `avfuse weights fetch {known.name}`, or give it with --weights if it is yours"
            )
        return _from_file(feature, path, hash_of)
    other = _ELSE.get(feature)
    source = _find(other, given, seed, hash_of) if other else None
    return replace(source, feature=feature, same_as=other) if source else None


def _find_folder(name: str, given: Mapping[str, Path], seed: int | None) -> WeightSource | None:
    is_own = form_of(name) == "optional"
    if name not in given and seed is not None and not is_own:
        return WeightSource(name, "untrained", None, None, "none: random numbers", untrained_seed=seed)
    path = Path(given[name]) if name in given else local_folder(name)
    if path is None:
        return None
    licence = None
    try:
        if not is_own:
            check_folder(path)
            licence = licence_of(path)
        source = WeightSource(name, path.resolve().name, path, None, licence or "not known to avfuse (your own)")
        tuning = None if is_own else read_tuning(path)
        return replace(source, sha256=hash_of_weights(source), tuning=tuning)
    except ValueError as error:
        raise WeightsInvalid(f"{path}: {one_line(error)}") from error


def _from_file(feature: str, path: Path, hash_of: Callable[[Path], str]) -> WeightSource:
    sha256 = hash_of(path)
    # Known by its hash under any name; by its name where no hash of it is known.
    known = next((file for file in REGISTRY.values() if file.matches(sha256)), None)
    for file in REGISTRY.values():
        if known is None and not file.sha256_prefix and file.file_name == path.name:
            known = file
    name, licence = (known.name, known.licence) if known else (path.name, "not known to avfuse (your own file)")
    try:
        tuning = read_tuning(path)
    except ValueError as error:
        raise WeightsInvalid(f"{path}: {error}") from error
    if tuning is not None and isinstance(inherited := tuning.get("licence"), str):
        licence = inherited
    return WeightSource(feature, name, path, sha256, licence, tuning=tuning)
