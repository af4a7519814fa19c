"""Weight files made to do harm: nothing in them is run, nothing else is opened, memory and time stay bounded."""

import io
import os
import pickle
import random
import resource
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from avfuse.encoders.networks.layouts import SUZHANG, empty, unwrap
from avfuse.encoders.weights.registry import PCA
from avfuse.encoders.weights.resolve import WeightsInvalid, WeightSource, load_network, load_pca


def source_of(path: Path, feature: str = "iresnet50") -> WeightSource:
    return WeightSource(feature, path.name, path, "0" * 64, "a licence")


class Hostile:
    """Whatever unpickles it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def zipped(held: object, path: Path) -> None:
    torch.save(held, path)


def legacy(held: object, path: Path) -> None:
    torch.save(held, path, _use_new_zipfile_serialization=False)


def plain(held: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(held, 4))


def in_a_tar(held: object, path: Path) -> None:
    """The layout of 2016: a tar of three pickles."""
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(held, 2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def in_the_head(held: object, path: Path) -> None:
    """The old layout with the code before the weights, where the machine is described."""
    magic, protocol = 0x1950A86A20F9469CFC6C, 1001
    path.write_bytes(b"".join(pickle.dumps(each, 2) for each in (magic, protocol, held, {}, [])))


def in_torchscript(held: object, path: Path) -> None:
    """A scripted module, whose archive gets another pickle."""
    torch.save({"a": torch.zeros(1)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/constants.pkl", pickle.dumps(held, 2))
        archive.writestr("archive/code/__torch__.py", "")


NESTS = {
    "bare": lambda held: held,
    "a_value": lambda held: {"conv1.weight": held},
    "state_dict": lambda held: {"state_dict": {"module.conv1.weight": held}},
    "a_key": lambda held: {"state_dict": {"a": torch.zeros(1)}, "optimizer": [({"x": (held,)},)]},
}
LAYOUTS = [zipped, legacy, plain, in_a_tar, in_the_head, in_torchscript]


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
@pytest.mark.parametrize("nest", NESTS)
@pytest.mark.parametrize("save", LAYOUTS, ids=lambda save: save.__name__)
def test_code_in_any_layout_is_not_run(save, nest, suffix, tmp_path):
    path, target = tmp_path / f"hostile{suffix}", tmp_path / "created"
    save(NESTS[nest](Hostile(target)), path)
    for load, feature in ((load_network, "iresnet50"), (load_network, "vggish"), (load_pca, PCA)):
        with pytest.raises(WeightsInvalid, match=r"hostile\.p"):
            load(source_of(path, feature))
    assert not target.exists()


def test_the_pickle_is_hostile(tmp_path):
    """What the tests above rest on: Python's own reader does run it."""
    pickle.loads(pickle.dumps(Hostile(tmp_path / "created"), 4))
    assert (tmp_path / "created").is_dir()


@pytest.mark.parametrize("word", [b"cbuiltins\neval\n", b"cbuiltins\ngetattr\n", b"ctorch\nload\n", b"cos\nsystem\n"])
def test_words_that_lead_to_code(word, tmp_path):
    path = tmp_path / "words.pth"
    path.write_bytes(b"\x80\x02" + word + b"(V1+1\ntR.")
    with pytest.raises(WeightsInvalid, match=r"words\.pth"):
        load_network(source_of(path))


def test_scripted_modules_are_refused(tmp_path):
    path = tmp_path / "scripted.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "version", "code/__torch__.py"):
            archive.writestr(f"scripted/{name}", pickle.dumps({}, 2))
    with pytest.raises(WeightsInvalid, match=r"scripted\.pt"):
        load_network(source_of(path))


@pytest.mark.parametrize("size", [10**12, 1 << 62])
def test_memory_that_is_asked_for_is_not_given(size, tmp_path):
    path = tmp_path / "big.pth"
    path.write_bytes(b"\x80\x02cbuiltins\nbytearray\n\x8a\x08" + struct.pack("<q", size) + b"\x85R.")
    with pytest.raises(WeightsInvalid, match=r"big\.pth"):
        load_network(source_of(path))


def test_a_packed_archive_is_refused(tmp_path):
    """640 MB of zeros in 1 MB: torch would unpack it."""
    path = tmp_path / "packed.pth"
    torch.save({"a": torch.zeros(4)}, tmp_path / "small.pth")
    with (
        zipfile.ZipFile(tmp_path / "small.pth") as small,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed,
    ):
        for info in small.infolist():
            if not info.filename.endswith("data/0"):
                packed.writestr(info.filename, small.read(info))
        with packed.open("small/data/0", "w") as storage:
            for _ in range(40):
                storage.write(bytes(16 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsInvalid, match=r"packed\.pth.*an archive of \d+ bytes in a file of"):
        load_network(source_of(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10


@pytest.mark.timeout(60)
def test_a_dictionary_that_holds_itself(tmp_path):
    held: dict[str, object] = {}
    held["state_dict"] = held
    torch.save(held, tmp_path / "self.pth")
    with pytest.raises(WeightsInvalid, match=r"self\.pth: it holds a .*not a state dict"):
        load_network(source_of(tmp_path / "self.pth"))
    with pytest.raises(ValueError, match="not a state dict"):
        unwrap(held)


def test_arrays_of_objects_are_no_pca(tmp_path):
    target = tmp_path / "created"
    objects = np.array([Hostile(target)], dtype=object)
    torch.save({"pca_eigen_vectors": objects, "pca_means": np.zeros(128)}, tmp_path / "pca.pth")
    with pytest.raises(WeightsInvalid, match=r"pca\.pth"):
        load_pca(source_of(tmp_path / "pca.pth", PCA))
    assert not target.exists()


def headed(header: bytes, size: int | None = None, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header) if size is None else size) + header + body


@pytest.mark.parametrize(
    "content",
    [
        headed(b"{}", 1 << 63),
        headed(b"{}", (1 << 64) - 1),
        headed(b"{}", 100_000_000),
        headed(b"[" * 100_000),
        headed(b'{"a":' * 50_000),
        headed(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}}'),
        headed(b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'),
        headed(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', body=bytes(4)),
        headed(b'{"a":{"dtype":"Q8","shape":[1],"data_offsets":[0,4]}}', body=bytes(4)),
        headed(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}', body=bytes(4)),
        headed(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', body=bytes(4)),
        headed(b"\xff\xfe"),
        b"",
        b"\0" * 8,
    ],
)
def test_absurd_safetensors(content, tmp_path):
    path = tmp_path / "absurd.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsInvalid, match=r"absurd\.safetensors"):
        load_network(source_of(path))


def mutants(whole: bytes, count: int, seed: int, within: int) -> list[bytes]:
    rng, made = random.Random(seed), []
    for _ in range(count):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 4, 30])):
            data[rng.randrange(min(within, len(data)))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        made.append(bytes(data[: rng.randrange(1, len(data))] if rng.random() < 0.2 else data))
    return made


@pytest.mark.parametrize("kind", ["zipped", "legacy", "safetensors"])
def test_any_broken_byte_is_an_error_with_the_file_in_it(kind, tmp_path):
    state = {
        key: torch.zeros((), dtype=t.dtype).expand(t.shape) for key, t in list(empty(SUZHANG).state_dict().items())
    }
    held = {key: state[key] for key in list(state)[:6]}
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    if kind == "safetensors":
        save_file({key: t.contiguous() for key, t in held.items()}, path)
    else:
        {"zipped": zipped, "legacy": legacy}[kind](held, path)
    for content in mutants(path.read_bytes(), 80, 3, 3000):
        path.write_bytes(content)
        with pytest.raises(WeightsInvalid) as caught:  # six tensors are no network, whatever else is wrong
            load_network(source_of(path))
        assert str(path) in str(caught.value)
