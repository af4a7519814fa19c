"""Machines that are not like ours: another locale, no home, no hard links across folders, linked runs."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def latin1(tmp_path_factory) -> dict[str, str]:
    if shutil.which("localedef") is None:
        pytest.skip("no localedef to make a Latin-1 locale with")
    folder = tmp_path_factory.mktemp("locale")
    made = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(folder / "en_US")]
    if subprocess.run(made, capture_output=True, check=False).returncode > 1:
        pytest.skip("this machine has no sources of locales")
    return {"LOCPATH": str(folder), "LANG": "en_US"}


def run(*words, **environment) -> subprocess.CompletedProcess[str]:
    """`python -m avfuse` with exactly these variables of locale and output."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONUTF8", "PYTHONIO", "AVFUSE_"))
    }
    command = [sys.executable, "-m", "avfuse", *map(str, words)]
    done = subprocess.run(command, env={**kept, **environment}, capture_output=True, check=False, timeout=120)
    return subprocess.CompletedProcess(
        command, done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    )


def test_help_in_a_latin1_locale(latin1):
    assert "Videos below a folder → " in run("--help", **latin1).stdout


@pytest.mark.parametrize(("output", "arrow"), [("ascii", "→"), ("ascii:strict", "→"), ("latin-1", "?")])
def test_help_where_output_is_not_utf8(output, arrow):
    """What is set to write ASCII is set so by mistake, says click, and writes UTF-8."""
    done = run("--help", PYTHONIOENCODING=output)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Videos below a folder {arrow} " in done.stdout


@pytest.mark.parametrize("locale", ["C", "POSIX", "latin1"])
def test_names_are_the_same_in_every_locale(request, tmp_path, tiny, locale):
    """A trial's name is the UTF-8 name of its video, wherever the store is made."""
    (tmp_path / "videos").mkdir()
    shutil.copy(tiny(), tmp_path / "videos" / "é−×.mp4")
    environment = request.getfixturevalue("latin1") if locale == "latin1" else {"LC_ALL": locale}
    words = ("--videos", tmp_path / "videos", "--features", "mfcc", "--dry-run", "--json")
    done = run("extract", *words, **environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["todo"] == ["é−×"]


NOBODY = """
import os, pwd, sys
os.environ.pop("HOME", None)
def getpwuid(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = getpwuid
from avfuse.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["weights", "list"], 0, None),
        (["weights", "path", "vggish"], 1, "there is no home folder to keep weights in"),
        (["weights", "verify"], 1, "there is no home folder to keep weights in"),
        (["extract", "--videos", "."], 1, "no weights for iresnet50"),
        (["extract", "--videos", "~/videos"], 2, "~/videos: this user has no home folder; set HOME"),
    ],
)
def test_an_unknown_user_without_a_home(tmp_path, words, code, message):
    (tmp_path / "clip.mp4").write_bytes(b"a film")
    kept = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "AVFUSE_WEIGHTS")}
    command = [sys.executable, "-c", NOBODY, *words]
    done = subprocess.run(command, env=kept, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert (message in done.stderr.splitlines()[-1]) if message else not done.stderr


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.ENOTSUP], ids=errno.errorcode.get)
@pytest.mark.parametrize("everywhere", [True, False], ids=["everywhere", "across folders"])
def test_hard_links_that_cannot_be_made(monkeypatch, plant_small, fit, tmp_path, number, everywhere):
    """AFS makes none from one folder to another, FAT and some network disks none at all."""
    real = os.link

    def link(source, target, **kwargs):
        if everywhere or Path(source).parent != Path(target).parent:
            raise OSError(number, os.strerror(number), str(source), None, str(target))
        return real(source, target, **kwargs)

    corpus = plant_small(tmp_path)
    monkeypatch.setattr(os, "link", link)
    assert fit(corpus, tmp_path / "run", "--epochs", 1).exit_code == 0
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert not (tmp_path / "run" / ".claims").exists()


def test_linked_runs_are_runs(plant_small, fit, avfuse, tmp_path):
    small = plant_small(tmp_path)
    for seed in (0, 1):
        assert fit(small, tmp_path / "r" / f"s{seed}", "--epochs", 1, "--seed", seed).exit_code == 0
    (tmp_path / "links").mkdir()
    (tmp_path / "mixed").mkdir()
    for seed in (0, 1):
        (tmp_path / "links" / f"s{seed}").symlink_to(tmp_path / "r" / f"s{seed}")
    (tmp_path / "links" / "round").symlink_to(tmp_path / "links")  # a link that leads back ends
    (tmp_path / "mixed" / "a").symlink_to(tmp_path / "r" / "s0")
    shutil.copytree(tmp_path / "r" / "s1", tmp_path / "mixed" / "b")
    found = [avfuse("evaluate", "--run", tmp_path / name, "--json") for name in ("r", "links", "mixed")]
    assert all("2 runs" in each.stderr.splitlines() for each in found)
    assert len({json.loads(each.stdout)["P"] for each in found}) == 1


def test_nothing_is_left_of_a_file_that_is_not_there(invoke, tmp_path):
    result = invoke("import-h5", tmp_path / "none.h5", "--store", tmp_path / "new.zarr")
    assert result.exit_code == 1
    assert not (tmp_path / "new.zarr").exists()
