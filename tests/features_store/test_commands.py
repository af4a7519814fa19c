import json
import subprocess
import sys

import click
import numpy as np
import pytest
from click.testing import CliRunner

from avfuse.features_store import commands
from avfuse.features_store.records.failures import FailureRecord, append_failure
from avfuse.features_store.records.status import trial_states, trial_table
from avfuse.features_store.store import FeatureStore
from avfuse.shell.errors import clean_errors

UNTRAINED = "UNTRAINED WEIGHTS: vggish: for tests and demos only\n"


def run(command, *arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture
def filled(store, arrays, attributes):
    store.write("b/a", arrays, attributes)
    store.write("c", arrays, {**attributes, "fingerprint": "f2", "fps": "0/0"})
    store.write("v", {}, {"faces": 0})
    append_failure(store, FailureRecord("d.mp4", "decode", "moov atom not found", "2026", "d"))
    append_failure(store, FailureRecord("c.mp4", "decode", "once", "2026", "c"))
    return store


def test_status(filled):
    result = run(commands.status, "--store", filled.path)
    assert result.exit_code == 0
    assert "2 trials, 80 rows" in result.output
    assert "vggish: 2 of 2 trials; made with different settings or weights: which ones differ is not recorded" in (
        result.output
    )
    assert "UNTRAINED WEIGHTS: vggish of 2 trials" in result.output
    assert "iresnet50" not in result.output
    assert "failed: d.mp4 (decode): moov atom not found" in result.output
    assert "once" not in result.output


def test_status_json(filled):
    (filled.files.root / "c" / "zarr.json").write_text("{")
    found = json.loads(run(commands.status, "--store", filled.path, "--json").output)
    assert (found["trials"], found["rows"], found["incomplete"]) == (1, 40, ["c"])
    assert found["hours"] == pytest.approx(40 * 1001 / 30000 / 3600)
    assert found["untrained"] == {"vggish": 1}
    assert [record["trial"] for record in found["failed"]] == ["c", "d"]


def test_verify(filled, flip):
    result = run(commands.verify, "--store", filled.path)
    assert (result.exit_code, result.stdout) == (0, "2 trials, every chunk read, every checksum right\n")
    assert result.stderr == UNTRAINED
    flip(filled.files.root / "c" / "vggish" / "c" / "0" / "0", 30)
    result = run(commands.verify, "--store", filled.path)
    assert result.exit_code == 3
    assert len(result.stdout.splitlines()) == 1
    assert "c/vggish rows 0–40: broken chunk" in result.stdout
    result = run(commands.verify, "--store", filled.path, "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["problems"][0]["rows"] == [0, 40]


@pytest.mark.parametrize("by_option", [True, False])
def test_export_and_import(filled, tmp_path, by_option):
    file = tmp_path / "f.h5"
    result = run(commands.export, "--store", filled.path, "--to", "h5", "--out", file)
    assert (result.exit_code, result.stdout) == (0, f"2 trials to {file}\n")
    assert result.stderr.startswith(f"{UNTRAINED}about 11.0 KB to write to {file}, ")
    source = ["--from", file] if by_option else [file]
    result = run(commands.import_h5, *source, "--store", tmp_path / "back.zarr")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"2 trials from {file}\n", UNTRAINED)
    back = FeatureStore(tmp_path / "back.zarr", mode="a")
    assert back.groups() == filled.groups()
    again = run(commands.import_h5, *source, "--store", back.path)
    assert again.stdout == f"0 trials from {file}; 2 left alone: there already, and the same\n"
    back.write("c", {"time": np.zeros(3)}, {})
    refused = run(commands.import_h5, *source, "--store", back.path)
    assert (refused.exit_code, refused.stdout) == (1, "")
    replaced = run(commands.import_h5, *source, "--store", back.path, "--replace").stdout
    assert replaced == f"1 trial from {file}; 1 of them replaced; 1 left alone: there already, and the same\n"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (commands.status, []),
        (commands.verify, []),
        (commands.export, ["--to", "csv", "--out", "x"]),
        (commands.import_h5, ["absent.h5"]),
    ],
)
def test_could_not_start(tmp_path, command, arguments):
    (tmp_path / "photo.jpg").touch()
    result = run(command, "--store", tmp_path, *arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert (arguments[0] if arguments[:1] == ["absent.h5"] else str(tmp_path)) in result.stderr


def test_wrong_usage(tmp_path):
    assert run(commands.export, "--store", "x", "--to", "mat", "--out", "y").exit_code == 2
    assert run(commands.status).exit_code == 2
    assert run(commands.import_h5, "--store", tmp_path / "s").exit_code == 2
    assert run(commands.import_h5, "a", "--from", "b", "--store", tmp_path / "s").exit_code == 2
    assert not (tmp_path / "s").exists()


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom avfuse.features_store import commands\n"
        "for c in (commands.status, commands.verify, commands.export, commands.import_h5):\n"
        "    assert CliRunner().invoke(c, ['--help']).exit_code == 0\n"
        "print({'zarr', 'numpy', 'h5py', 'pyarrow', 'torch'} & set(sys.modules))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


class Named(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("two\nlines"), "two lines"),
        (ValueError("a\x1b[2Jb\u202ec"), "a\\x1b[2Jb\\u202ec"),
        (FileNotFoundError(2, "No such file or directory", "x\ny.mp4"), "x\\ny.mp4: No such file or directory"),
        (FileNotFoundError(2, "No such file or directory", "x.mp4"), "x.mp4: No such file or directory"),
        (Named(), "Named"),
    ],
)
def test_clean_errors(error, message):
    with pytest.raises(click.ClickException) as caught, clean_errors(Named):
        raise error
    assert (caught.value.message, caught.value.exit_code) == (message, 1)


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError), clean_errors():
        raise ZeroDivisionError
    with pytest.raises(BrokenPipeError), clean_errors():
        raise BrokenPipeError(32, "Broken pipe")


def test_the_state_of_each_trial(store, make_arrays):
    arrays = make_arrays(10)
    arrays["time"] = np.array([0.0, 0.1, 0.2, 0.3, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3])  # a pause after the fourth frame
    arrays["face_score"] = np.array([1, 1, 1, 0, 0, 1, 1, 1, 0, 1], np.float32)
    arrays["vggish_valid"] = np.array([0, 0, 1, 1, 1, 1, 1, 1, 0, 0], bool)
    store.write("a", arrays, {"warnings": ["a warning"]})
    store.write("empty", {"time": np.zeros(0)}, {})
    a, empty = trial_states(store)
    gaps = (a.length_s, a.faces, a.face_gap_s, a.sound, a.sound_gap_s)
    assert gaps == pytest.approx((1.3 * 10 / 9, 0.7, 0.6, 0.6, 1.3 / 9 + 0.1))
    assert a.warnings == ("a warning",)
    assert (empty.rows, empty.length_s, empty.faces, empty.sound) == (0, None, None, None)
    assert [len(line.split("  ")) > 1 for line in trial_table([a, empty])] == [True] * 3


def test_a_trial_that_cannot_be_read_is_named(filled):
    shard = filled.files.root / "c" / "time" / "c" / "0"
    shard.write_bytes(shard.read_bytes()[:-9])
    result = run(commands.status, "--store", filled.path, "--trials", "--json")
    assert result.exit_code == 0
    whole, broken = json.loads(result.output)["by_trial"]
    assert whole["warnings"] == []
    assert "`avfuse verify` says how to fix it" in broken["warnings"][0]
