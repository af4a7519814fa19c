"""Weights that are a folder: looked at before any library opens it, hashed, and loaded without a key missing.

    NAME/  config.json                     what the network is: sizes that fit the weights, no code of its own
           model.safetensors               or several with model.safetensors.index.json; never a pickle
           preprocessor_config.json, tokenizer.json …        where the encoder has them

Errors are ValueErrors without the folder's name, which `resolve` puts in front.
Tested by tests/encoders/weights/test_folder.py.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...features_store.disk.atomic import sha256_of
from ...shell.text import counted, one_line, preview

if TYPE_CHECKING:
    from torch import Tensor

METADATA = "__metadata__"
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
# Beside the weights, what changes an encoder's rows.
_OF_INPUTS = (
    *("preprocessor_config.json", "processor_config.json", "feature_extractor_config.json", "tokenizer.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"),
    *("spiece.model", "sentencepiece.bpe.model"),
)
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".th")
_NO_IDENTITY = (".md", ".gitattributes", ".gitignore")
_MOST_FILES, _MOST_JSON_BYTES, _MOST_HEADER_BYTES = 1000, 4 << 20, 64 << 20
_MOST_VALUES, _MOST_LAYERS, _MOST_WIDTH, _MOST_NUMBER = 100_000, 512, 1 << 16, 10_000_000
_LAYERS = re.compile(r"layers$|depths?$|blocks?$")
_WIDTH = re.compile(r"dim$|hidden_size$|width$|intermediate_size$|embed_dim$|channels?$|ffn|d_model$|heads$|kernel")
_CODE = ("auto_map", "custom_pipelines", "trust_remote_code")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# A vision tower alone may stand beside the configuration of the whole model.
_MORE_THAN_HELD, _FREE_PARAMETERS = 6, 100_000_000


def check_folder(folder: Path) -> None:
    """Look at a folder of weights without running or building anything of it; bounded in time and memory.

    Raises ValueError, one line, where it is not a folder of safetensors that stand for themselves: a hub's name, only
    pickles, code of its own, links out of it, a configuration of absurd sizes, a damaged header.
    """
    if not folder.exists() and not folder.is_symlink() and _HUB_NAME.fullmatch(str(folder)):
        raise ValueError(
            "is not a folder here, and names of a hub are not looked up: download it once, as by `hf download "
            f"{folder} --local-dir DIR`, and give that folder"
        )
    if not folder.is_dir():
        raise ValueError(f"is not a folder with {CONFIG} and {WEIGHTS} in it")
    names = _names(folder)
    for name in names:
        path = folder / name
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{name} is a link out of the folder, to {os.readlink(path)}: copy it by `cp -rL`")
    if CONFIG not in names:
        raise ValueError(f"has no {CONFIG}")
    if "adapter_config.json" in names:
        raise ValueError("adapter_config.json: it is an adapter to weights that lie elsewhere, not weights")
    for name in names:
        if name.endswith("config.json"):
            _refuse_code(_values(read_json(folder / name)), name)
    files = weight_files(folder)
    held = sum(math.prod(shape) for path in files for shape in shapes_of(path).values())
    asked = _parameters(read_json(folder / CONFIG))
    if asked > _MORE_THAN_HELD * held + _FREE_PARAMETERS:
        raise ValueError(
            f"{CONFIG} asks for about {asked / 1e6:,.0f} million parameters, the weights hold {held / 1e6:,.1f} million"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of at most 4 MB. Raises ValueError naming the file."""
    size_bytes = path.stat().st_size
    if size_bytes > _MOST_JSON_BYTES:
        raise ValueError(f"{path.name} has {size_bytes / 1e6:.0f} MB: no configuration is that large")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds a {type(found).__name__}, not an object")
    return found


@contextmanager
def settings_of(whose: str) -> Iterator[None]:
    """Settings of transformers are made within, of a config.json.

    Raises ValueError where they cannot be those of `whose`, whichever version of transformers finds that.
    """
    from huggingface_hub.errors import StrictDataclassError  # noqa: PLC0415 - comes with transformers

    from ..networks.layouts import CANNOT_BUILD  # noqa: PLC0415 - it loads torch

    try:
        yield
    except (*CANNOT_BUILD, StrictDataclassError) as error:
        raise ValueError(f"config.json is not that of {whose}: {one_line(error)}") from error


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a folder: the only one, `model.safetensors` of several, or those of the index.

    Raises ValueError where there are none, or it is not clear which.
    """
    names = _names(folder)
    found = [name for name in names if name.endswith(".safetensors")]
    if INDEX in names:
        parts = read_json(folder / INDEX).get("weight_map")
        wanted = sorted(set(map(str, parts.values()))) if isinstance(parts, dict) else []
        if absent := [name for name in wanted if name not in found] or ([] if wanted else ["weight_map"]):
            raise ValueError(f"{INDEX} names what is not here: {preview(absent)}")
        return tuple(folder / name for name in wanted)
    if WEIGHTS in found or len(found) == 1:
        return (folder / (WEIGHTS if WEIGHTS in found else found[0]),)
    if found:
        raise ValueError(f"holds {preview(found)}: which one is it? Rename it {WEIGHTS}")
    if pickles := [name for name in names if name.endswith((*_PICKLES, ".h5", ".msgpack", ".onnx"))]:
        raise ValueError(
            f"holds {preview(pickles)} and no .safetensors: a pickle can run anything and is not read. Take the "
            "publisher's safetensors, or write them once where you trust the file (docs/encoders.md)"
        )
    raise ValueError(f"has no {WEIGHTS}")


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a safetensors file by name, from its header alone. Raises ValueError naming it."""
    header, start = read_header(path)
    try:
        tensors = {name: each for name, each in header.items() if name != METADATA}
        shapes = {name: tuple(map(int, each["shape"])) for name, each in tensors.items()}
        end = max((int(each["data_offsets"][1]) for each in tensors.values()), default=0)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path.name} is not a safetensors file ({type(error).__name__} in its header)") from error
    size_bytes = path.stat().st_size
    if end + start > size_bytes or any(each < 0 for shape in shapes.values() for each in shape):
        raise ValueError(f"{path.name} is cut short: {size_bytes} bytes of {end + start}")
    return shapes


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its tensors start in it. Raises ValueError naming it."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        length = struct.unpack("<Q", start)[0] if len(start := file.read(8)) == 8 else 0
        if not 2 <= length <= min(_MOST_HEADER_BYTES, size_bytes - 8):
            raise ValueError(f"{path.name} is not a safetensors file, or is cut short")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path.name} is not a safetensors file ({type(error).__name__} in its header)") from error
    if not isinstance(header, dict):
        raise ValueError(f"{path.name} is not a safetensors file (its header is not a JSON object)")
    return header, length + 8


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's weights by name. Raises ValueError naming the file."""
    from safetensors import SafetensorError  # noqa: PLC0415 - torch only where it is used
    from safetensors.torch import load_file  # noqa: PLC0415

    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        try:
            tensors |= load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path.name}: not a safetensors file, or cut short ({error})") from error
    return tensors


def strict(missing: Collection[str], unexpected: Iterable[str], allowed_prefixes: tuple[str, ...] = ()) -> None:
    """Refuse weights that leave a part of the network random, or hold what is not known to be of no use.

    `missing`: keys of the network that the weights lack; `unexpected`: keys that it has no place for; those that begin
    with `allowed_prefixes` are of other heads or towers. Raises ValueError naming some of them.
    """
    if missing:
        what = counted(len(missing), "tensor")
        raise ValueError(f"{what} missing: {preview(sorted(missing))}; half a checkpoint, or another network's")
    if foreign := sorted(key for key in unexpected if not key.startswith(allowed_prefixes)):
        raise ValueError(f"{counted(len(foreign), 'tensor')} too many: {preview(foreign)}; another network's weights?")


def folder_sha256(folder: Path, everything: bool = False) -> str:
    """Hash of what makes a folder's rows: sha256 over the sorted names and hashes of its files, not of its texts.

    `everything`: of all files but texts about it, for encoders that read what they like; else of config, weights and
    what prepares their inputs. Raises ValueError, OSError.
    """
    if everything:
        names = [name for name in _names(folder) if not name.endswith(_NO_IDENTITY) and not name.startswith(".")]
    else:
        there = _names(folder)
        names = [CONFIG, *(path.name for path in weight_files(folder)), *(each for each in _OF_INPUTS if each in there)]
        names += [INDEX] if INDEX in there else []
    lines = [f"{name}\0{sha256_of(folder / name)}\n" for name in sorted(names)]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def licence_of(folder: Path) -> str | None:
    """The licence that a folder's own metadata name: its README's front matter, its configuration, its weights.

    None where they name none. Raises ValueError on a configuration that is not JSON.
    """
    readme = folder / "README.md"
    if readme.is_file():
        with readme.open(encoding="utf-8", errors="replace") as file:
            front = file.read(1 << 14)
        if front.startswith("---") and (
            found := re.search(r"^license(?:_name)?:[ \t]*(\S[^\n]*)$", front[3:].split("\n---")[0], re.M)
        ):
            return found[1].strip("'\" ")
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    pretrained = config.get("pretrained_cfg")
    for section in (config, pretrained if isinstance(pretrained, dict) else {}):
        if isinstance(named := section.get("license"), str) and named.strip():
            return named.strip()
    return None


def _names(folder: Path) -> list[str]:
    """Names of the plain files of a folder, links to such among them. Raises ValueError where there are too many."""
    names = []
    with os.scandir(folder) as entries:
        for number, each in enumerate(entries):
            if number >= _MOST_FILES:
                raise ValueError(f"holds more than {_MOST_FILES} files: is it the right folder?")
            if each.is_file() or (each.is_symlink() and not each.is_dir()):
                names.append(each.name)
    return sorted(names)


def _values(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All values of a JSON object with their keys; those of a list have the list's."""
    waiting = [(key, node)]
    for _ in range(_MOST_VALUES):
        if not waiting:
            return
        key, node = waiting.pop()
        yield key, node
        if isinstance(node, dict):
            waiting.extend((str(name), value) for name, value in node.items())
        elif isinstance(node, list):
            waiting.extend((key, value) for value in node)
    raise ValueError(f"a configuration of more than {_MOST_VALUES} values")


def _refuse_code(values: Iterable[tuple[str, Any]], name: str) -> None:
    for key, value in values:
        if key in _CODE and value:
            raise ValueError(
                f"{name} has {key}: it wants code of its own to be run, which avfuse never does. Your own code for it: "
                "--encoder NAME=FILE.py (docs/own-encoder.md)"
            )


def _parameters(config: Mapping[str, Any]) -> int:
    """About how many parameters a configuration asks for. Raises ValueError at a number that no network has."""
    for key, value in _values(config):
        if not isinstance(value, (int, float)) or isinstance(value, bool) or key.endswith(("_id", "max_length")):
            continue
        most = _MOST_LAYERS if _LAYERS.search(key) else _MOST_WIDTH if _WIDTH.search(key) else _MOST_NUMBER
        if value > most:
            raise ValueError(f"{CONFIG} has {key} = {value:g}, and no network has more than {most:g}")
    total = 0
    for _, node in _values(config):
        if not isinstance(node, dict):
            continue

        def first(*keys: str, node: Mapping[str, Any] = node) -> int:
            return next((value for key in keys if isinstance(value := node.get(key), int)), 0)

        width = first("hidden_size", "d_model", "embed_dim", "width", "dim")
        layers = first("num_hidden_layers", "encoder_layers", "num_layers", "depth", "layers", "n_layers")
        inner = first("intermediate_size", "encoder_ffn_dim", "ffn_dim") or 4 * width
        total += (layers + first("decoder_layers")) * (4 * width * width + 2 * width * inner)
        total += (first("vocab_size") + first("max_position_embeddings")) * width
        convs = node.get("conv_dim")
        if isinstance(convs, list) and all(isinstance(each, int) for each in convs):
            total += sum(3 * one * other for one, other in pairwise(convs))
    return total
