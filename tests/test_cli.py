"""The table of commands: every option has a help text, and nothing heavy loads before a command needs it."""

import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from avfuse import __version__
from avfuse.cli import COMMANDS, main
from avfuse.shell.options import option_name


def commands(group, prefix=()):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*prefix, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))


ALL = dict(commands(main))


@pytest.mark.parametrize("name", ALL, ids=" ".join)
def test_every_option_has_help_with_its_default(name):
    for parameter in ALL[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            shown = parameter.required or parameter.show_default or "default" in parameter.help
            assert shown, f"{parameter.name} does not show its default"


@pytest.mark.parametrize("name", ALL, ids=" ".join)
def test_help_is_plain(name):
    text = " ".join(CliRunner().invoke(main, [*name, "--help"]).output.split())
    assert "None" not in text
    assert not re.search(r"\bin hand\b|\bis no (?:folder|file|number)\b|\btold twice\b|\bmend\b", text)


@pytest.mark.parametrize("name", ["extract", "transcribe", "train", "compare", "run"])
def test_every_option_is_under_one_heading(name):
    command = ALL[(name,)]
    grouped = [option for names in command.groups.values() for option in names]
    assert sorted(grouped) == sorted(option_name(each) for each in command.get_params(click.Context(command)))
    shown = CliRunner().invoke(main, [name, "--help"]).stdout
    assert all(f"\n{heading}:\n" in shown for heading in command.groups)


@pytest.mark.parametrize("name", ALL, ids=" ".join)
def test_placeholders_are_those_of_all_commands(name):
    words = {"DIR", "FILE", "PATH", "STORE", "DEVICE", "ADDRESS", "LIST", "N", "S", "X", "GB", "SEED", "I/N", "K|all"}
    words |= {"KEY=VALUE", "NAME", "NAME=FILE", "NAME|FILE", "SETS", "LAYERS", "none|ma:K|savgol:K"}
    for parameter in ALL[name].params:
        if isinstance(parameter, click.Option) and not parameter.is_flag:
            shown = parameter.make_metavar(click.Context(ALL[name]))
            assert shown in words or isinstance(parameter.type, click.Choice), f"{parameter.name}: {shown}"


@pytest.mark.parametrize("name", ALL, ids=" ".join)
def test_every_command_answers_help(name):
    result = CliRunner().invoke(main, [*name, "--help"])
    assert result.exit_code == 0
    assert ALL[name].help


def test_the_table_says_what_each_command_does():
    result = CliRunner().invoke(main, ["--help"])
    assert all(name in result.output for name in COMMANDS)
    assert {name for (name, *rest) in ALL if not rest} == set(COMMANDS)


def test_the_demo_leaves_a_folder_of_others_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    result = CliRunner().invoke(main, ["demo", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "holds other files; name a new folder by --out" in result.stderr
    assert (tmp_path / "run" / "config.json").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["etxract"], "There is no command 'etxract' (did you mean extract?)."),
        (["xyzzy"], "There is no command 'xyzzy'."),
        (["weights", "lst"], "Did you mean 'list'?"),
        (["train", "--stroe", "x"], "'--store'"),
    ],
)
def test_mistyped_words_are_wrong_usage(words, message):
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]


def test_python_m_avfuse_is_the_same():
    done = subprocess.run([sys.executable, "-m", "avfuse", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"avfuse, version {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["extract", "--help"],
        ["transcribe", "--help"],
        ["status", "--help"],
        ["weights", "list"],
        ["train", "--help"],
        ["folds", "--help"],
        ["synth", "--help"],
        ["predict", "--help"],
    ],
)
def test_help_loads_nothing_heavy(words):
    code = (
        "import sys\nfrom avfuse.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        "print('loaded:', [name for name in ('torch', 'zarr', 'dask', 'h5py') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


@pytest.mark.parametrize("words", [["--help"], ["extract", "--help"], ["status", "--help"]], ids=" ".join)
def test_help_loads_nothing_that_takes_long(words):
    code = "import sys; from click.testing import CliRunner; from avfuse.cli import main"
    code += (
        f"; CliRunner().invoke(main, {words}); print({{'numpy', 'torch', 'zarr', 'dask', 'PIL'}} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
