"""`--config`: what is empty is absent, what is wrong is exit 2 with the line, and the command line is laid over it."""

import json

import click
import pytest
import yaml
from click.testing import CliRunner

from avfuse.fusion.options import Setting
from avfuse.shell.options import FILE, FOLDER, NAME_LIST, STORE, MergedOption, Number, config_option


@click.command()
@click.option("--out", type=FOLDER, required=True)
@click.option("--store", type=STORE, default="features.zarr")
@click.option("--epochs", type=click.IntRange(min=1), default=7)
@click.option("--batch-size", type=int, default=3)
@click.option("--memory-gb", type=Number(min=0))
@click.option("--modalities", type=NAME_LIST)
@click.option("--group", type=click.Choice(["auto", "none"]), default="auto")
@click.option("--plots/--no-plots", default=True)
@click.option("--run", "runs", type=FILE, multiple=True)
@click.option("--set", "settings", cls=MergedOption, type=Setting(), multiple=True)
@click.option("--jobqueue", cls=MergedOption, multiple=True, metavar="KEY=VALUE")
@config_option
def command(**options):
    click.echo(json.dumps(options, default=str))


@pytest.fixture
def call(tmp_path):
    def call(text, *words):
        (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
        return CliRunner().invoke(command, ["--config", str(tmp_path / "c.yaml"), *words])

    return call


@pytest.fixture
def parsed(call):
    def parse(text, *words):
        result = call(f"out: run\n{text}", *words)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return parse


@pytest.mark.parametrize("empty", ["", " ~", " null", "  # later"])
def test_an_empty_value_is_as_if_absent(parsed, call, empty):
    keys = ("store", "epochs", "batch_size", "modalities", "plots", "run", "set", "jobqueue")
    lines = "".join(f"{key}:{empty}\n" for key in keys)
    assert parsed(lines) == parsed("")
    missing = call(f"out:{empty}\n")
    assert (missing.exit_code, missing.stderr.splitlines()[-1]) == (2, "Error: Missing option '--out'.")


@pytest.mark.parametrize("empty", ["set: []", "set: {}", "set:\n  lr:", "set: [~]", "modalities: []", "{}", "---"])
def test_an_empty_list_or_map_is_as_if_absent(call, empty):
    assert json.loads(call(empty, "--out", "run").stdout) == json.loads(call("", "--out", "run").stdout)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("epochs: many", "epochs: 'many' is not a valid integer"),
        ("epochs: 0", "epochs: 0 is not in the range"),
        ("epochs: true", "epochs takes INTEGER RANGE, not true"),
        ("epochs: [1, 2]", "epochs takes one value"),
        ("epochs: {a: 1}", "epochs takes one value"),
        ("out: [a, b]", "out takes one value"),
        ("out: yes", "out takes DIR, not yes"),
        ("out: ''", "out: an empty path"),
        ("plots: maybe", "plots: 'maybe' is not a valid boolean"),
        ("plots: [true]", "plots takes one value"),
        ("group: some", "group: 'some' is not one of 'auto', 'none'."),
        ("memory-gb: .nan", "memory-gb: '.nan' is not a valid float"),
        ("modalities: {face: 1}", "modalities takes one value, or a list of them"),
        ("modalities: [[face]]", "modalities takes one value, or a list of them"),
        ("run: {a: b}", "run takes one value, or a list of them"),
        ("set: lr", "set: 'lr' is not KEY=VALUE"),
        ("set: 5", "set: '5' is not KEY=VALUE"),
        ("set: [[lr=1]]", "set takes `name: value` lines"),
        ("jobqueue: {a: &b [*b]}", "lists and maps are nested too deeply"),
        ("jobqueue: {kind: slurm, kind: pbs}", "kind is given twice, first in line 2"),
        ("set: {batch-size: 1, batch_size: 2}", "batch_size is given twice, first in line 2"),
        ("set: [lr=1, lr=2]", "set: lr is given twice"),
        ("[a, b]: 1", "a key is one word"),
        ("epoch: 1", "unknown key: epoch (did you mean epochs?)"),
        ("config: other.yaml", "unknown key: config"),
        ("5: 1", "unknown key: 5"),
    ],
)
def test_a_wrong_line_is_named(call, line, what):
    result = call(f"# by hand\n{line}\n", "--out", "run")
    assert result.exit_code == 2
    assert result.stderr.count("\nError: ") == 1
    assert f"c.yaml, line 2: {what}" in result.stderr.splitlines()[-1]


def test_a_key_given_twice_is_an_error(call):
    result = call("batch_size: 1\nout: run\nbatch-size: 2\n")
    assert result.exit_code == 2
    assert "c.yaml, line 3: batch-size is given twice, first in line 1" in result.stderr


@pytest.mark.parametrize("text", ["epochs: [1\n", "a: b: c\n", "\tepochs: 1\n", "--- 1\n--- 2\n", "é: [", "&a [*a]"])
def test_what_is_not_yaml_is_one_line(call, text):
    result = call(text, "--out", "run")
    assert result.exit_code == 2
    assert "c.yaml" in result.stderr.splitlines()[-1]


def test_values_are_read_as_they_are_typed(parsed):
    found = parsed(
        "store: 2026\nepochs: 010\ngroup: none\nplots: off\nmodalities: [face, voice]\nrun: a\n"
        "set:\n  lr: 1e-4\n  lead_channels: [8, 8]\n  plain: no\njobqueue: {walltime: 02:00:00}\n"
    )
    assert found["store"] == "2026"
    assert found["epochs"] == 10
    assert (found["group"], found["plots"], found["modalities"], found["runs"]) == ("none", False, "face,voice", ["a"])
    assert found["settings"] == [["lr", "1e-4"], ["lead_channels", "[8, 8]"], ["plain", "no"]]
    assert found["jobqueue"] == ["walltime=02:00:00"]


def test_nested_values_reach_the_queue_as_they_are(parsed):
    lines = "jobqueue:\n  extra: ['--gres=gpu:1', -A me, 'a, b']\n  scheduler_options: {port: 0, host: 'x:y'}\n"
    found = [yaml.safe_load(pair.partition("=")[2]) for pair in parsed(lines)["jobqueue"]]
    assert found == [["--gres=gpu:1", "-A me", "a, b"], {"port": 0, "host": "x:y"}]


@pytest.mark.parametrize("text", ["set: {lr: 1, heads: 2}", "set:\n- lr: 1\n- heads: 2", "set: [lr=1, heads=2]"])
def test_the_command_lines_settings_are_laid_over_the_files(parsed, text):
    assert dict(parsed(text)["settings"]) == {"lr": "1", "heads": "2"}
    assert dict(parsed(text, "--set", "lr=5", "--set", "hidden=3")["settings"]) == {
        "lr": "5",
        "heads": "2",
        "hidden": "3",
    }
    assert parsed("jobqueue: {kind: pbs}", "--jobqueue", "cores=2")["jobqueue"] == ["kind=pbs", "cores=2"]


def test_other_flags_win(parsed):
    found = parsed("epochs: 3\nplots: false\nrun: [a, b]", "--epochs", "4", "--plots", "--run", "c")
    assert (found["epochs"], found["plots"], found["runs"]) == (4, True, ["c"])


@pytest.mark.parametrize("words", [["--out", "~/runs"], ["--out=~/runs"], []])
def test_a_tilde_is_the_home_folder(call, monkeypatch, tmp_path, words):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found = json.loads(call("out: ~/runs\nstore: ~/s.zarr\nrun: [~/a, ~]", *words).stdout)
    assert found["out"] == str(tmp_path / "home" / "runs")
    assert found["store"] == str(tmp_path / "home" / "s.zarr")
    assert found["runs"] == [str(tmp_path / "home" / "a")]


@pytest.mark.parametrize("location", ["memory://~/x", "a/~/b", "a~", "~~"])
def test_a_tilde_elsewhere_is_a_tilde(call, location):
    assert json.loads(call("", "--out", "run", "--store", location).stdout)["store"] == location


@pytest.mark.parametrize("words", [["--out", ""], ["--out="], ["--out", "run", "--store", ""]])
def test_an_unset_variable_is_not_a_folder(call, words):
    result = call("", *words)
    assert result.exit_code == 2
    assert "an empty path" in result.stderr


@pytest.mark.parametrize(("number", "code"), [("nan", 2), ("inf", 0), ("1e300", 0), ("-1", 2), ("0", 0)])
def test_numbers(call, number, code):
    assert call("", "--out", "run", "--memory-gb", number).exit_code == code
