"""`--out` is never another's folder: what is there is refused, or is of the same kind and replaced whole."""

import json
import shutil

import pytest

from avfuse.fusion.results.folder import Part, earlier_files, growing_folder, result_folder

MADE = {"command": "avfuse predict"}


def make(out, **files):
    with result_folder(out, "predict", MADE) as folder:
        for name, text in files.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestFolder:
    def test_it_names_its_files(self, tmp_path):
        make(tmp_path / "out", a="1", b__c="2")
        assert json.loads((tmp_path / "out/made.json").read_text()) == {
            "results": "predict", "made": MADE, "files": ["a", "b/c"],
        }  # fmt: skip
        assert set(contents(tmp_path / "out")) == {"made.json", "a", "b/c"}
        assert earlier_files(tmp_path / "out", "predict") == ["a", "b/c"]

    def test_the_next_making_replaces_it_whole(self, tmp_path):
        make(tmp_path, a="1", b__c="2", b__d="2")
        make(tmp_path, a="3", e="4")
        found = contents(tmp_path)
        assert (set(found), found["a"]) == ({"made.json", "a", "e"}, b"3")
        assert not (tmp_path / "b").exists()

    def test_an_error_leaves_the_earlier_one(self, tmp_path):
        make(tmp_path, a="1")
        before = contents(tmp_path)
        with pytest.raises((FileExistsError, NotADirectoryError)):
            make(tmp_path, a="half", b__c="x" * 10, **{"b__c__d": "b/c is a file"})
        assert contents(tmp_path) == before
        assert not (tmp_path / ".tmp").exists()

    def test_one_that_was_stopped_while_files_were_moved(self, tmp_path):
        """What it had put there is its own, and goes."""
        make(tmp_path, a="1", b="1")
        (tmp_path / "new").write_text("moved")
        content = {"results": "predict", "made": MADE, "unfinished": True, "files": ["a", "b", "new", "never came"]}
        (tmp_path / "made.json").write_text(json.dumps(content))
        make(tmp_path, a="2")
        assert set(contents(tmp_path)) == {"made.json", "a"}
        assert "unfinished" not in json.loads((tmp_path / "made.json").read_text())

    @pytest.mark.parametrize("name", ["notes.txt", ".hidden", "a__mine", "made.json"])
    def test_other_files_are_refused(self, tmp_path, name):
        if name != "made.json":
            make(tmp_path, b="1")
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
        before = contents(tmp_path)
        with pytest.raises(ValueError, match=r"holds other files .*; name another --out"):
            make(tmp_path, b="2")
        assert contents(tmp_path) == before

    def test_a_list_cannot_name_files_elsewhere(self, tmp_path):
        (tmp_path / "mine").write_text("mine")
        (tmp_path / "out").mkdir()
        content = {"results": "predict", "made": MADE, "files": ["../mine", str(tmp_path / "mine")]}
        (tmp_path / "out/made.json").write_text(json.dumps(content))
        make(tmp_path / "out", a="1")
        assert (tmp_path / "mine").read_text() == "mine"

    def test_a_link_to_a_folder_is_something(self, tmp_path):
        (tmp_path / "videos").mkdir()
        (tmp_path / "out").mkdir()
        (tmp_path / "out/videos").symlink_to(tmp_path / "videos")
        with pytest.raises(ValueError, match="holds other files"):
            earlier_files(tmp_path / "out", "predict")


PARTS = {"a": Part("1", ("a.csv", "a.png")), "b/c": Part("2", ("b/c.csv", "b/c.png"))}


class TestGrowingFolder:
    def grow(self, out, parts=None, stop_in=None, text="x"):
        """Make the parts that are not there; the names of those that were made."""
        parts, drawn = PARTS if parts is None else parts, []
        with growing_folder(out, "run", MADE, parts, ["summary"]) as folder:
            for name, part in parts.items():
                if not folder.has(name):
                    for file in part.files:
                        (folder.scratch / file).parent.mkdir(parents=True, exist_ok=True)
                        (folder.scratch / file).write_text(text)
                        if name == stop_in:
                            raise KeyboardInterrupt
                    drawn.append(name)
                (folder.scratch / "summary").write_text(" ".join(parts))
                folder.publish(name, part.digest)
        return drawn

    def test_parts_are_there_as_soon_as_they_are_published(self, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            self.grow(tmp_path, stop_in="b/c")
        assert set(contents(tmp_path)) == {"made.json", "a.csv", "a.png", "summary"}
        assert json.loads((tmp_path / "made.json").read_text())["unfinished"] is True
        assert self.grow(tmp_path) == ["b/c"]
        assert self.grow(tmp_path) == []
        made = json.loads((tmp_path / "made.json").read_text())
        assert made == {
            "results": "run", "made": MADE, "done": {"a": "1", "b/c": "2"},
            "files": ["a.csv", "a.png", "b/c.csv", "b/c.png", "summary"],
        }  # fmt: skip

    def test_what_is_of_another_making_goes_before_anything_is_published(self, tmp_path):
        self.grow(tmp_path)
        others = PARTS | {"a": Part("3", ("a.csv",))}
        with pytest.raises(KeyboardInterrupt):
            self.grow(tmp_path, others, stop_in="a")
        assert set(contents(tmp_path)) == {"made.json", "b/c.csv", "b/c.png"}
        assert self.grow(tmp_path, others, text="y") == ["a"]
        found = contents(tmp_path)
        assert (found["a.csv"], found["b/c.png"]) == (b"y", b"x")
        assert "a.png" not in found

    def test_a_part_of_which_a_file_is_gone_is_made_again(self, tmp_path):
        self.grow(tmp_path)
        (tmp_path / "a.png").unlink()
        assert self.grow(tmp_path) == ["a"]

    def test_other_files_are_refused_and_stay(self, tmp_path):
        self.grow(tmp_path)
        (tmp_path / "mine").touch()
        before = contents(tmp_path)
        with pytest.raises(ValueError, match=r"holds other files \(mine\)"):
            self.grow(tmp_path, {})
        assert contents(tmp_path) == before


@pytest.fixture
def place(request, small, trained, grid, tmp_path):
    """A folder of somebody else."""
    kind = request.param
    folder = tmp_path / "place"
    if kind == "videos":
        (folder / "batch1").mkdir(parents=True)
        (folder / "batch1/a.mp4").write_text("a video")
    elif kind == "files":
        folder.mkdir()
        (folder / "thesis.tex").write_text("mine")
    else:
        source = {"store": small.store, "labels": small.annotations, "run": trained, "runs": grid}[kind]
        shutil.copytree(source, folder)
    return folder


PLACES = ["store", "labels", "videos", "files", "run", "runs"]


def refused(result):
    assert result.exit_code == 1, result.output
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: ")
    assert result.stdout == ""
    return line


@pytest.mark.parametrize("place", [name for name in PLACES if name != "runs"], indirect=True)
@pytest.mark.parametrize("words", [("--fold", "all"), ("--seeds", 2)])
def test_a_grid_is_put_into_no_other_folder(small, avfuse, train_words, place, words):
    before = contents(place)
    error = refused(avfuse(*train_words(small, place, *words, "--epochs", 1)))
    assert "another" in error
    assert contents(place) == before


@pytest.mark.parametrize("place", PLACES, indirect=True)
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_results_are_put_into_no_other_folder(small, trained, avfuse, place, command):
    before = contents(place)
    error = refused(avfuse(command, "--run", trained, "--store", small.store, "--out", place))
    assert "another" in error
    assert contents(place) == before


def test_results_of_the_other_command_are_refused(small, trained, avfuse, tmp_path):
    words = ("--run", trained, "--store", small.store, "--out", tmp_path / "out")
    assert avfuse("predict", *words).exit_code == 0
    before = contents(tmp_path / "out")
    assert "holds other files" in refused(avfuse("evaluate", *words))
    assert contents(tmp_path / "out") == before


def test_nothing_is_put_into_a_store(small, trained, avfuse, train_words, tmp_path):
    store = shutil.copytree(small.store, tmp_path / "features.zarr")
    before = contents(store)
    target = store / "clip0" / "run"
    commands = [
        train_words(small, target),
        train_words(small, target, "--fold", "all"),
        ("evaluate", "--run", trained, "--out", target),
        ("predict", "--run", trained, "--store", store, "--out", target),
        ("folds", "--annotations", small.annotations, "--out", target),
        ("synth", target),
        ("demo", "--out", target),
    ]
    for words in commands:
        assert f"lies in the store {store}" in refused(avfuse(*words))
    assert contents(store) == before


def test_nothing_is_put_among_labels_of_any_name(small, trained, avfuse, train_words, tmp_path):
    """There, a history.csv would be the labels of a trial `history`."""
    labels = tmp_path / "labels"
    labels.mkdir()
    for number in range(8):
        shutil.copy(small.labels(f"clip{number}"), labels / f"clip{number}.csv")
    corpus = type(small)(small.store, labels)
    before = contents(labels)
    assert "would count as labels" in refused(avfuse(*train_words(corpus, labels / "run", "--folds", 2)))
    words = ("evaluate", "--run", trained, "--annotations", labels, "--out", labels / "report")
    assert "would count as labels" in refused(avfuse(*words))
    assert contents(labels) == before


def test_a_grid_that_was_stopped_at_once_goes_on(small, fit, tmp_path):
    (tmp_path / "runs/fold0/seed0/.claims").mkdir(parents=True)
    (tmp_path / "runs/.DS_Store").write_text("")
    fit(small, tmp_path / "runs", "--seeds", 2, "--epochs", 1)
    (tmp_path / "runs/notes.txt").write_text("mine")
    assert "2 done before" in fit(small, tmp_path / "runs", "--seeds", 2, "--epochs", 1).stderr
