"""Files that say beside them how they were made, and are replaced only where they are as they were written."""

import hashlib
import json

import click
import pytest
from click.testing import CliRunner

from avfuse import __version__
from avfuse.features_store.interchange.result_files import (
    check_file,
    check_place,
    made,
    side_car,
    write_with_side_car,
)
from avfuse.features_store.store import FeatureStore
from avfuse.shell.text import command_line


def test_what_is_made_names_version_command_and_more():
    found = made(store="features.zarr", UNTRAINED=["voice"])
    assert found["avfuse"] == __version__
    assert found["command"].startswith("avfuse")
    assert (found["store"], found["UNTRAINED"]) == ("features.zarr", ["voice"])


def test_the_command_line_can_be_typed_again(monkeypatch, tmp_path):
    from avfuse import cli

    lines = []

    @click.command()
    @click.option("--out")
    def run(out):
        lines.append(command_line())

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *words: run)
    CliRunner().invoke(cli.main, ["folds", "--out", "a folder"])
    assert lines == ["avfuse folds --out 'a folder'"]


class TestSideCar:
    def test_it_says_which_content_it_is_of(self, tmp_path):
        path = tmp_path / "new" / "va.txt"
        write_with_side_car(path, b"0.5", made(runs=["r"]))
        content = json.loads((tmp_path / "new" / "va.txt.made.json").read_text())
        assert (content["file"], content["made"]["runs"]) == ("va.txt", ["r"])
        assert content["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()

    def test_a_file_as_it_was_written_may_be_replaced(self, tmp_path):
        path = tmp_path / "va.txt"
        check_file(path)
        write_with_side_car(path, b"0.5", {})
        check_file(path)

    @pytest.mark.parametrize("side", [None, b"no JSON", b"[]", b'{"sha256": "another"}', b"changed"])
    def test_any_other_may_not(self, tmp_path, side):
        path = tmp_path / "va.txt"
        write_with_side_car(path, b"0.5", {})
        if side == b"changed":
            path.write_bytes(b"0.6, which I changed by hand")
        elif side is None:
            side_car(path).unlink()
        else:
            side_car(path).write_bytes(side)
        with pytest.raises(ValueError, match="is there already, and is not as avfuse wrote it"):
            check_file(path)


def test_nothing_is_put_into_a_store(tmp_path):
    FeatureStore(tmp_path / "features.zarr", mode="a")
    for place in ("features.zarr", "features.zarr/run", "features.zarr/a/b"):
        with pytest.raises(ValueError, match=r"lies in the store .*features\.zarr"):
            check_place(tmp_path / place)
    check_place(tmp_path / "run")
