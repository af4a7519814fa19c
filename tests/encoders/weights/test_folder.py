"""Folders of weights: what is read, what is refused in one line, and what makes two of them the same."""

import json
import os
import re
import struct
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from avfuse.encoders.table import TABLE
from avfuse.encoders.weights.folder import (
    check_folder,
    folder_sha256,
    licence_of,
    load_tensors,
    strict,
    weight_files,
)
from avfuse.encoders.weights.registry import FOLDERS
from avfuse.encoders.weights.resolve import WeightsInvalid, WeightsMissing, hash_of_weights, resolve, weight_names

TIMM = "timm:resnet10t"
CONFIG = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 30, "conv_dim": [16, 16]}


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("AVFUSE_WEIGHTS", raising=False)


@pytest.fixture
def folder(tmp_path):
    """A small one that is as it should be."""
    made = tmp_path / "net"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CONFIG))
    save_file({"a.weight": torch.ones(4, 3), "a.bias": torch.zeros(4)}, made / "model.safetensors")
    return made


def config(folder: Path, **more) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, **more}))


def only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.ones(2)}, folder / "pytorch_model.bin")


def link_out(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to("../elsewhere.safetensors")


def index(folder: Path, **parts: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))


def deep(folder: Path) -> None:
    (folder / "config.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)


HOSTILE = {
    "only a pickle": (only_a_pickle, r"holds pytorch_model\.bin and no \.safetensors: a pickle can run anything"),
    "nothing": (lambda f: (f / "model.safetensors").unlink(), r"has no model\.safetensors"),
    "no configuration": (lambda f: (f / "config.json").unlink(), r"has no config\.json"),
    "code": (
        lambda f: config(f, auto_map={"AutoModel": "m.M"}),
        r"config\.json has auto_map: it wants code of its own",
    ),
    "code of a tokenizer": (
        lambda f: (f / "tokenizer_config.json").write_text('{"x": [{"auto_map": {"a": "b.B"}}]}'),
        r"tokenizer_config\.json has auto_map",
    ),
    "a link out": (link_out, r"model\.safetensors is a link out of the folder, to \.\./else.*cp -rL"),
    "a thousand million layers": (
        lambda f: config(f, num_hidden_layers=10**9),
        r"num_hidden_layers = 1e\+09, and no network has more than 512",
    ),
    "the same, nested": (lambda f: config(f, vision_config={"depth": 10**9}), r"depth = 1e\+09"),
    "a width": (lambda f: config(f, hidden_size=2**30), "hidden_size = "),
    "a million channels": (lambda f: config(f, conv_dim=[2**20, 2**20]), "conv_dim = "),
    "as large as can be": (
        lambda f: config(f, num_hidden_layers=500, hidden_size=2**15),
        "asks for about .* million parameters, the weights hold 0.0 million",
    ),
    "many values": (lambda f: config(f, conv_dim=[1] * 200_000), "more than 100000 values"),
    "a deep configuration": (deep, r"config\.json is not JSON \(RecursionError\)"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "holds a list, not an object"),
    "no JSON": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe{"), r"config\.json is not JSON"),
    "a large one": (lambda f: (f / "config.json").write_text(" " * (5 << 20)), "no configuration is that large"),
    "cut short": (lambda f: os.truncate(f / "model.safetensors", 100), "cut short"),
    "its end is gone": (lambda f: os.truncate(f / "model.safetensors", 180), r"cut short|not a safetensors"),
    "no safetensors": (
        lambda f: (f / "model.safetensors").write_bytes(b"PK\x03\x04" * 99),
        "is not a safetensors file",
    ),
    "a header of 8 EB": (
        lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}"),
        "is not a safetensors file",
    ),
    "parts that lie elsewhere": (lambda f: index(f, a="../elsewhere.safetensors"), "names what is not here"),
    "an adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), "adapter to weights that lie elsewhere"),
    "which one": (
        lambda f: [(f / "model.safetensors").rename(f / "a.safetensors"), save_file({}, f / "b.safetensors")],
        r"holds a\.safetensors, b\.safetensors: which one",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_is_one_line(folder, name):
    spoil, said = HOSTILE[name]
    spoil(folder)
    with pytest.raises(ValueError, match=said) as caught:
        check_folder(folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(WeightsInvalid, match=f"^{folder}: "):
        resolve([TIMM], {TIMM: folder}, None)


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_one_line_for_a_user_too_and_costs_little(folder, name, avfuse):
    spoil, _ = HOSTILE[name]
    spoil(folder)
    tracemalloc.start()
    try:
        result = avfuse("encoder", "check", TIMM, "--weights", f"{TIMM}={folder}", "--device", "cpu")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(f"Error: {folder}: ")
    assert peak_bytes < 100e6


def test_a_good_folder_passes(folder):
    check_folder(folder)
    config(folder, vocab_size=50_000, max_position_embeddings=514, model_max_length=1e30, pad_token_id=10**9)
    check_folder(folder)
    assert set(load_tensors(folder)) == {"a.weight", "a.bias"}


def test_links_within_a_folder_are_its_own(folder):
    (folder / "model.safetensors").rename(folder / "blob")
    (folder / "model.safetensors").symlink_to("blob")
    check_folder(folder)


def test_parts_of_an_index(folder):
    save_file({"b": torch.ones(1)}, folder / "b.safetensors")
    index(folder, a="model.safetensors", b="b.safetensors")
    check_folder(folder)
    assert [path.name for path in weight_files(folder)] == ["b.safetensors", "model.safetensors"]
    assert set(load_tensors(folder)) == {"a.weight", "a.bias", "b"}


@pytest.mark.parametrize("name", ["openai/clip-vit-large-patch14", "org/name"])
def test_a_name_of_a_hub_is_not_looked_up(name):
    with pytest.raises(WeightsInvalid, match=f"hf download {name} --local-dir DIR"):
        resolve([TIMM], {TIMM: Path(name)}, None)


# --- identity


def test_the_hash_is_of_what_makes_the_rows(folder):
    before = folder_sha256(folder)
    (folder / "README.md").write_text("about it")
    (folder / "pytorch_model.bin").write_bytes(b"the same as a pickle")
    (folder / "training_args.json").write_text("{}")
    assert folder_sha256(folder) == before
    for name in ("preprocessor_config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
        assert folder_sha256(folder) != before
        (folder / name).unlink()
    config(folder, hidden_act="relu")
    assert folder_sha256(folder) != before


def test_a_moved_folder_is_the_same_and_other_names_are_not(folder, tmp_path):
    before = folder_sha256(folder)
    moved = folder.rename(tmp_path / "moved")
    assert folder_sha256(moved) == before
    (moved / "model.safetensors").rename(moved / "net.safetensors")
    assert folder_sha256(moved) != before


def test_licences_are_where_publishers_write_them(folder):
    assert licence_of(folder) is None
    config(folder, pretrained_cfg={"license": "apache-2.0"})
    assert licence_of(folder) == "apache-2.0"
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: cc-by-nc-4.0\n---\nlicense: of the text below\n")
    assert licence_of(folder) == "cc-by-nc-4.0"
    (folder / "README.md").write_text("# A net\n\nlicense: in prose\n")
    assert licence_of(folder) == "apache-2.0"


# --- which folder


def test_order_given_folder_cache(folder, tmp_path, monkeypatch):
    assert weight_names((TIMM, "mfcc"), "raw") == (TIMM,)
    with pytest.raises(WeightsMissing, match=r"--weights timm:resnet10t=DIR.*AVFUSE_WEIGHTS/timm/resnet10t/"):
        resolve([TIMM], {}, None)
    there = tmp_path / "cache" / "avfuse" / "weights" / "timm" / "resnet10t"
    there.parent.mkdir(parents=True)
    folder.rename(there)
    source = resolve([TIMM], {}, None)[TIMM]
    assert (source.path, source.name, source.sha256) == (there, "resnet10t", folder_sha256(there))
    assert hash_of_weights(source) == source.sha256
    monkeypatch.setenv("AVFUSE_WEIGHTS", str(tmp_path / "mine"))
    mine = tmp_path / "mine" / "timm" / "resnet10t"
    mine.parent.mkdir(parents=True)
    there.rename(mine)
    assert resolve([TIMM], {}, None)[TIMM].path == mine
    assert resolve([TIMM], {}, 5)[TIMM].untrained_seed == 5
    assert resolve([TIMM], {TIMM: mine}, 5)[TIMM].path == mine


def test_a_folder_of_the_users_own_is_whatever_it_is(tmp_path):
    given = tmp_path / "weights"
    given.mkdir()
    (given / "net.pt").write_bytes(b"one")
    source = resolve(["hear:some.package"], {"hear:some.package": given}, None)["hear:some.package"]
    (given / "net.pt").write_bytes(b"other")
    assert hash_of_weights(source) != source.sha256
    assert resolve(["hear:some.package"], {}, 3) == {}


# --- strict


def test_half_a_checkpoint_is_refused():
    strict([], [])
    strict([], ["text_model.a", "logit_scale"], ("text_model.", "logit_scale"))
    with pytest.raises(ValueError, match=r"84 tensors missing: 00, 01, 02, 03, 04 and 79 more"):
        strict([f"{number:02}" for number in range(84)], [])
    with pytest.raises(ValueError, match=re.escape("1 tensor too many: head.a")):
        strict([], ["text_model.a", "head.a"], ("text_model.",))


def test_every_folder_of_the_table_says_where_it_is_from():
    needed = {name for name, made in TABLE.items() if made.network and made.weights == "folder"}
    assert needed <= set(FOLDERS)
    for name, known in FOLDERS.items():
        assert known.licence
        assert known.command.startswith(f"hf download {known.repository}")
        assert known.command.endswith(f"$AVFUSE_WEIGHTS/{name}")
