"""`avfuse weights`: what it prints and how it ends."""

import hashlib
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from avfuse.encoders.weights.commands import weights
from avfuse.encoders.weights.http import DownloadError
from avfuse.encoders.weights.registry import REGISTRY, entry


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("AVFUSE_OFFLINE", "1")
    folder = tmp_path / "avfuse" / "weights"
    folder.mkdir(parents=True)
    return folder


def call(*args):
    return CliRunner().invoke(weights, list(args))


def fails(result, *parts):
    """Exit code 1, one line on stderr, nothing on stdout."""
    assert result.exit_code == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    for part in parts:
        assert part in result.stderr


def test_list_says_everything(cache):
    (cache / "res50_ir_0.887.pth").write_bytes(b"x")
    text = call("list").stdout
    for file in REGISTRY.values():
        for part in (
            file.name,
            file.architecture,
            file.licence,
            file.sha256 or "not known",
            file.url or "by hand",
        ):
            assert part in text
    assert str(cache / "res50_ir_0.887.pth") in text


def test_list_json(cache):
    (cache / "res50_ir_0.887.pth").write_bytes(b"x")
    entries = {held["name"]: held for held in json.loads(call("list", "--json").stdout)}
    assert list(entries)[: len(REGISTRY)] == list(REGISTRY)
    assert entries["suzhang-ir50"]["cached"] == str(cache / "res50_ir_0.887.pth")
    assert entries["vggish"]["cached"] is None
    assert entries["w600k_r50"]["size_bytes"] == 174_383_860


def test_path(cache):
    fails(call("path", "vggish"), str(cache), "avfuse weights fetch vggish")
    fails(call("path", "suzhang-ir50"), "by hand", "ABAW3")
    fails(call("path", "resnet"), "'resnet'; there are vggish")
    (cache / "vggish-10086976.pth").write_bytes(b"x")
    assert call("path", "vggish").stdout == f"{cache / 'vggish-10086976.pth'}\n"


def test_verify(cache, monkeypatch):
    assert call("verify").stdout == f"nothing in {cache}\n"
    fails(call("verify", "vggish"), "avfuse weights fetch vggish")
    (cache / "vggish-10086976.pth").write_bytes(b"x")
    found = hashlib.sha256(b"x").hexdigest()
    damaged = call("verify")
    assert damaged.exit_code == 3
    for part in ("vggish: MISMATCH", found, entry("vggish").sha256):
        assert part in damaged.stderr
    monkeypatch.setitem(REGISTRY, "vggish", replace(entry("vggish"), sha256=found))
    (cache / "res50_ir_0.887.pth").write_bytes(b"x")
    whole = call("verify")
    assert whole.exit_code == 0
    assert "vggish: ok" in whole.stdout
    assert "suzhang-ir50: no published hash" in whole.stdout


def test_fetch_offline_and_by_hand(cache):
    result = call("fetch", "vggish")
    assert result.exit_code == 1
    assert "licence: Apache-2.0" in result.stderr
    assert f"Error: AVFUSE_OFFLINE is set. By hand: fetch {entry('vggish').url}" in result.stderr
    assert "by hand" in call("fetch", "ms1m-ir50").stderr
    fails(call("fetch", "resnet"), "'resnet'")


@pytest.mark.parametrize("args", [["fetch"], ["fetch", "vggish", "--all"]])
def test_fetch_needs_names_or_all(cache, args):
    result = call(*args)
    assert result.exit_code == 2
    assert "NAME" in result.stderr


def test_fetch_prints_paths_and_shows_no_bar_in_a_log(cache, monkeypatch):
    def fetch(file, folder, progress):
        progress(1, 2)
        progress(2, 2)
        return folder / file.file_name

    monkeypatch.setattr("avfuse.encoders.weights.download.fetch", fetch)
    result = call("fetch", "--all")
    assert result.exit_code == 0
    fetchable = [file for file in REGISTRY.values() if file.url]
    assert result.stdout.splitlines() == [str(cache / file.file_name) for file in fetchable]
    assert result.stderr.splitlines() == [f"{file.name}: licence: {file.licence}" for file in fetchable]


def test_download_errors_are_one_line(cache, monkeypatch):
    def fetch(file, folder, progress):
        raise DownloadError("the reason")

    monkeypatch.setattr("avfuse.encoders.weights.download.fetch", fetch)
    result = call("fetch", "vggish")
    assert result.exit_code == 1
    assert result.stderr.endswith("Error: the reason\n")
