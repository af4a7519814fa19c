import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from avfuse.cli import main
from avfuse.fusion.folds.manifest import Fold, read_manifest
from avfuse.fusion.folds.options import fold_options, manifest_of, manifest_option
from avfuse.shell.options import config_option


def folds(*words):
    return CliRunner().invoke(main, ["folds", *map(str, words)])


@pytest.fixture
def official(tmp_path):
    """Twelve train trials, one subject on both sides of the official split."""
    root = tmp_path / "annotations"
    train = [*(f"{number}-30-640x480" for number in range(1, 11)), "video1_1", "video1_2"]
    for name, trials in (("Train_Set", train), ("Validation_Set", ["video1_3", "video2"])):
        folder = root / "VA_Estimation_Challenge" / name
        folder.mkdir(parents=True)
        for trial in trials:
            (folder / f"{trial}.txt").write_text("valence,arousal\n0,0\n")
    return root


@pytest.fixture
def plain(tmp_path):
    """Five trials of no official split; a and b are of one person."""
    root = tmp_path / "plain"
    root.mkdir()
    for trial in "abcde":
        (root / f"{trial}.csv").write_text("time,valence,arousal\n0,0,0\n")
    return root


def test_the_table(official):
    result = folds("--annotations", official)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "fold   train  validation  moved",
        "   0      12           2      0",
        "   1       9           5      1",
        "   2      12           2      0",
        "   3      12           2      0",
        "   4      12           2      0",
        "   5      12           2      0",
        "kept together (subjects as names show them):",
        "  video1: video1_1, video1_2, video1_3",
        "moved in fold 1: video1_3 to validation",
    ]
    assert result.stderr == "warning: subjects that fold 0, the official split, has on both sides: video1\n"


def test_the_manifest_is_written_and_used(official, tmp_path):
    out = tmp_path / "new" / "folds.json"
    result = folds("--annotations", official, "--out", out)
    assert result.stdout.endswith(f"manifest to {out}\n")
    printed = folds("--annotations", official, "--json")
    assert printed.stdout == out.read_text()
    _, manifest = manifest_of(official)
    assert read_manifest(out) == manifest
    assert manifest_of(official, manifest=out)[1] == manifest


def test_a_corpus_without_a_split(plain, tmp_path):
    table = tmp_path / "groups.csv"
    table.write_text("trial,subject\na,x\nb,x\nc,y\nd,z\ne,z\nf,z\n")
    result = folds("--annotations", plain, "--folds", 3, "--groups", table, "--json")
    assert result.exit_code == 0
    assert result.stderr == f"note: trials of {table} that the corpus does not have: f\n"
    content = json.loads(result.stdout)
    assert content["grouping"] == "file"
    assert [fold["validation"] for fold in content["folds"]] == [["a", "b"], ["c"], ["d", "e"]]


def test_settings_from_a_file(plain, tmp_path):
    settings = tmp_path / "folds.yaml"
    settings.write_text(f"annotations: {plain}\nfolds: 5\ngroup: none\n")
    assert len(json.loads(folds("--config", settings, "--json").stdout)["folds"]) == 5
    assert len(json.loads(folds("--config", settings, "--folds", 2, "--json").stdout)["folds"]) == 2
    settings.write_text("fold: 5\n")
    refused = folds("--annotations", plain, "--config", settings)
    assert refused.exit_code == 2
    assert "unknown key: fold" in refused.stderr


def test_few_trials_make_one_fold(official):
    for path in (official / "VA_Estimation_Challenge" / "Train_Set").glob("*x480.txt"):
        path.unlink()
    result = folds("--annotations", official)
    assert result.exit_code == 0
    assert "there is only fold 0" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "has no official split (Train_Set, Validation_Set): give --folds N"),
        (("--folds", 6), "6 folds cannot be cut from 5 subjects of 5 trials"),
        (("--folds", 2, "--groups", "absent.csv"), "absent.csv: No such file or directory"),
    ],
)
def test_errors_are_one_line(plain, words, said):
    result = folds("--annotations", plain, *words)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_wrong_usage(plain, official):
    assert folds("--annotations", plain, "--folds", 1).exit_code == 2
    assert folds("--annotations", official, "--folds", 5).exit_code == 1
    assert folds("--annotations", plain / "absent", "--folds", 5).exit_code == 1


def test_a_manifest_must_fit_the_labels(plain, tmp_path, capsys):
    path = tmp_path / "folds.json"
    path.write_text('{"avfuse_folds": 1, "folds": [{"fold": 0, "train": ["a", "z"], "validation": ["b"]}]}')
    with pytest.raises(ValueError, match=r"folds\.json names trials without labels below .*: z"):
        manifest_of(plain, manifest=path)
    path.write_text(path.read_text().replace('"z"', '"c"'))
    manifest_of(plain, manifest=path)
    assert capsys.readouterr().err == f"note: trials with labels that {path} leaves out: d, e\n"
    with pytest.raises(click.UsageError, match="--manifest has the folds already"):
        manifest_of(plain, folds=2, manifest=path)


def test_a_manifest_may_name_trials_as_a_store_does(plain, tmp_path):
    path = tmp_path / "folds.json"
    fold = '{"fold": 0, "train": ["batch1/a", "c"], "validation": ["batch2/b"]}'
    path.write_text(f'{{"avfuse_folds": 1, "folds": [{fold}]}}')
    assert manifest_of(plain, manifest=path)[1].folds == (Fold(0, ("a", "c"), ("b",)),)


def test_out_is_replaced_only_as_it_was_written(plain, tmp_path):
    out = tmp_path / "folds.json"
    words = ("--annotations", plain, "--out", out)
    assert folds(*words, "--folds", 2).exit_code == 0
    content = json.loads((tmp_path / "folds.json.made.json").read_text())
    assert content["made"]["annotations"] == str(plain)
    assert folds(*words, "--folds", 3).exit_code == 0
    assert len(read_manifest(out).folds) == 3
    edited = out.read_text().replace('"a"', '"b"')
    out.write_text(edited)
    result = folds(*words, "--folds", 2)
    assert result.exit_code == 1
    assert "is not as avfuse wrote it; remove it, or name another file" in result.stderr
    assert out.read_text() == edited
    (tmp_path / "folds.json.made.json").unlink()
    (tmp_path / "labels.csv").write_text("mine")
    assert folds("--annotations", plain, "--folds", 2, "--out", tmp_path / "labels.csv").exit_code == 1
    assert (tmp_path / "labels.csv").read_text() == "mine"


def test_another_command_can_have_the_options(plain):
    @click.command()
    @fold_options
    @manifest_option
    @config_option
    def train(**options):
        click.echo(len(manifest_of(**options)[1].folds))

    assert CliRunner().invoke(train, ["--annotations", str(plain), "--folds", "4"]).stdout == "4\n"


def test_torch_is_not_loaded(plain):
    words = ["folds", "--annotations", str(plain), "--folds", "2"]
    code = (
        f"import sys\nfrom avfuse.cli import main\ntry:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'zarr', 'dask', 'h5py', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("place", ["plain/f.csv", "annotations/VA_Estimation_Challenge/Train_Set/f.TXT"])
def test_a_manifest_is_not_a_label_file(plain, official, tmp_path, place):
    """Else the next command takes it for a trial."""
    root = plain if place.startswith("plain") else official
    words = () if root is official else ("--folds", 2)
    result = folds("--annotations", root, *words, "--out", tmp_path / place)
    assert result.exit_code == 1
    assert "would count as labels" in result.stderr.splitlines()[-1]
    assert folds("--annotations", root, *words, "--out", root / "f.json").exit_code == 0


def test_a_file_in_capitals_is_a_trial_as_the_others(official):
    train = official / "VA_Estimation_Challenge" / "Train_Set"
    before = json.loads(folds("--annotations", official, "--json").stdout)["folds"][0]
    (train / "video1_2.txt").rename(train / "video1_2.TXT")
    assert json.loads(folds("--annotations", official, "--json").stdout)["folds"][0] == before
