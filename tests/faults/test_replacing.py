"""What a run would replace in done trials is asked for first, and named; which trials, which crops, which labels."""

import json
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from avfuse.features_store.store import FeatureStore


@pytest.fixture
def extract(invoke, tmp_path):
    """`extract` of the videos' folder into one store, with MFCCs unless asked otherwise."""

    def run(*words):
        features = () if "--features" in words else ("--features", "mfcc")
        folders = ("--videos", tmp_path / "videos", "--store", tmp_path / "s.zarr")
        return invoke("extract", *folders, *features, "--device", "cpu", *words)

    return run


@pytest.fixture
def labelled(tmp_path):
    """A folder of annotations with so many rows a trial."""

    def write(name, **rows):
        for part in ("Train_Set", "Validation_Set"):
            (tmp_path / name / "VA_Estimation_Challenge" / part).mkdir(parents=True)
        for trial, count in rows.items():
            path = tmp_path / name / "VA_Estimation_Challenge" / "Train_Set" / f"{trial}.txt"
            path.write_text("valence,arousal\n" + "0.1,0.2\n" * count)
        return tmp_path / name

    return write


def refused(result, *printed):
    """Exit code 1 and one line that says all this."""
    assert result.exit_code == 1, result.stderr
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    for each in printed:
        assert each in line
    return line


def test_other_settings_are_named_and_asked_for(extract, videos, snapshot, tmp_path):
    videos("a.mp4", "b/c.mp4")
    assert extract().exit_code == 0
    before = snapshot(tmp_path / "s.zarr")
    for dry in ((), ("--dry-run",)):
        refused(
            extract("--audio-align", "center", *dry),
            "mfcc of 2 done trials would be replaced (a, b/c): audio_align: start in the store, center now.",
            "--replace",
        )
    assert snapshot(tmp_path / "s.zarr") == before
    videos("d.mp4")  # a new video does not hide what the old ones would lose
    refused(extract("--audio-align", "center"), "2 done trials would be replaced (a, b/c)")
    dry = extract("--audio-align", "center", "--replace", "--dry-run", "--json")
    assert json.loads(dry.stdout)["todo"] == ["a", "b/c", "d"]
    assert "2 done trials would be replaced" in dry.stderr
    assert extract("--audio-align", "center", "--replace").exit_code == 0
    again = extract("--audio-align", "center", "--replace", "--json")
    assert json.loads(again.stdout)["done_before"] == 3
    assert json.loads(again.stdout)["extracted"] == []
    assert FeatureStore(tmp_path / "s.zarr")["a"].entries["mfcc"]["settings"]["audio_align"] == "center"


def test_what_would_be_left_behind_is_refused(extract, videos, labelled, snapshot, tmp_path):
    """Another length, or another face track, makes all that hangs on it anew, or nothing."""
    videos("a.mp4")
    assert extract("--features", "mfcc,logmel").exit_code == 0
    before = snapshot(tmp_path / "s.zarr")
    assert json.loads(extract("--json").stdout)["done_before"] == 1  # fewer features are no difference
    labels = labelled("labels", a=7)
    for words in ((), ("--replace",), ("--overwrite",)):
        refused(
            extract("--annotations", labels, *words),
            "1 trial (a) would be made anew, from other frames or another face track than logmel, which would be left "
            "behind: name it in --features too, or take it out by `avfuse remove --feature logmel`",
        )
    assert snapshot(tmp_path / "s.zarr") == before
    assert extract("--features", "logmel,mfcc", "--annotations", labels, "--replace").exit_code == 0
    assert FeatureStore(tmp_path / "s.zarr")["a"].rows == 7


def test_only_what_is_named_is_made_again(extract, videos, tmp_path):
    videos("a.mp4")
    assert extract("--features", "mfcc,logmel").exit_code == 0
    before = FeatureStore(tmp_path / "s.zarr")["a"]
    inode = (tmp_path / "s.zarr" / "a" / "logmel" / "zarr.json").stat().st_ino
    assert extract("--overwrite").exit_code == 0
    assert extract("--audio-align", "end", "--replace").exit_code == 0
    after = FeatureStore(tmp_path / "s.zarr")["a"]
    assert after.features == ["logmel", "mfcc"]
    assert after.checksums["mfcc"] != before.checksums["mfcc"]
    assert after.entries["logmel"] == before.entries["logmel"]
    assert (tmp_path / "s.zarr" / "a" / "logmel" / "zarr.json").stat().st_ino == inode


def test_other_weights_are_named_and_a_dry_run_needs_none(extract, videos):
    videos("a.mp4")
    words = ("--features", "vggish")
    assert extract(*words, "--untrained", "0").exit_code == 0
    refused(extract(*words, "--untrained", "1"), "weights of vggish: untrained:0 in the store, untrained:1 now")
    videos("b.mp4")
    dry = extract(*words, "--dry-run", "--json")
    assert dry.exit_code == 0
    assert json.loads(dry.stdout) == {"todo": ["b"], "done": ["a"]}
    assert "the run itself needs weights" in dry.stderr
    refused(extract(*words, "--audio-align", "end", "--dry-run"), "audio_align: start in the store, end now")
    refused(extract(*words), "no weights for vggish")


def test_a_forgotten_annotations_folder(extract, videos, labelled):
    videos("a.mp4")
    labels = labelled("labels", a=7)
    assert extract("--annotations", labels).exit_code == 0
    refused(extract(), "was --annotations forgotten?")
    assert extract("--annotations", labels).exit_code == 0
    refused(extract("--annotations", labelled("newer", a=8)), "rows: 7 in the store, 8 label rows now")


def test_a_forgotten_annotations_folder_that_changes_nothing(extract, videos, labelled, snapshot, tmp_path):
    """As many labels as frames: the trial stays as it is, and new ones are named."""
    videos("a.mp4")
    labels = labelled("labels", a=10)
    assert extract("--annotations", labels).exit_code == 0
    before = snapshot(tmp_path / "s.zarr")
    again = extract("--json")
    assert json.loads(again.stdout)["done_before"] == 1
    assert snapshot(tmp_path / "s.zarr") == before
    assert "--annotations" not in again.stderr
    videos("b.mp4")
    dry = extract("--dry-run")
    assert f"note: earlier runs over this store had --annotations {labels}; without it new trials" in dry.stderr


def test_bad_inputs_are_told_before_missing_weights(extract, videos, tmp_path):
    videos("a.mp4")
    words = ("--features", "vggish")
    refused(extract(*words, "--trials-from", tmp_path / "missing"), "missing: No such file or directory")
    refused(extract(*words, "--trials", "b"), "no trial is called b")
    refused(extract(*words), "no weights for vggish")
    assert not (tmp_path / "s.zarr").exists()


def test_a_changed_video_is_extracted_again_unasked(extract, videos, tiny):
    videos("a.mp4")
    assert extract().exit_code == 0
    videos("a.mp4", source=tiny(seconds=2))
    (receipt,) = json.loads(extract("--json").stdout)["extracted"]
    assert receipt["rows"] == 20
    videos("a.mp4")
    assert extract("--audio-align", "center").exit_code == 0


def rewrite(store, trial, drop=(), **changes):
    """The trial with other attributes, as an older version, or somebody else, has written them."""
    kept = {name: value for name, value in store[trial].attributes.items() if name not in drop}
    arrays = {name: array[:] for name, array in store[trial].items()}
    store.write(trial, arrays, {**kept, **changes})


def test_stores_of_before_get_a_true_line(extract, videos, tmp_path):
    videos("a.mp4")
    assert extract().exit_code == 0
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    former = {"settings": {"features": ["mfcc"], "audio_align": "start"}, "fingerprint": "f"}
    rewrite(store, "a", drop=["features"], **former, algorithm=3)
    assert json.loads(extract("--json").stdout)["done_before"] == 1
    rewrite(store, "a", drop=["features"], **former, algorithm=2)
    line = refused(extract("--audio-align", "end"), "audio_align: start in the store, end now")
    assert "how mfcc is computed: revision algorithm 2 in the store, 1 now" in line
    rewrite(store, "a", drop=["features", "settings"])
    line = refused(extract(), "made by an older version of avfuse: which setting differs is not recorded")
    assert "audio_align" not in line
    rewrite(store, "a", drop=["source"])
    refused(extract(), "made elsewhere: the video it comes from is not recorded")


def test_a_trial_that_has_a_part_of_its_features_is_not_done(extract, invoke, videos, tmp_path):
    videos("a.mp4")
    assert extract("--features", "mfcc,logmel").exit_code == 0
    export = ("export", "--store", tmp_path / "s.zarr", "--to", "h5", "--out", tmp_path / "f.h5", "--features", "mfcc")
    assert invoke(*export).exit_code == 0
    shutil.rmtree(tmp_path / "s.zarr")
    assert invoke("import-h5", tmp_path / "f.h5", "--store", tmp_path / "s.zarr").exit_code == 0
    assert json.loads(extract("--features", "mfcc", "--json").stdout)["done_before"] == 1
    (receipt,) = json.loads(extract("--features", "mfcc,logmel", "--json").stdout)["extracted"]
    assert (receipt["features"], receipt["added"]) == (["logmel"], True)


def test_chosen_trials(extract, videos, tmp_path):
    videos("a.mp4", "b/c.mp4", "d.mp4")
    assert json.loads(extract("--trials", "b/c, d", "--dry-run", "--json").stdout)["todo"] == ["b/c", "d"]
    (tmp_path / "names.txt").write_text("b/c\n\nd\n")
    result = extract("--trials-from", tmp_path / "names.txt", "--trials", "a", "--limit", "2", "--json")
    assert [each["trial"] for each in json.loads(result.stdout)["extracted"]] == ["a", "b/c"]
    refused(extract("--trials", "b/c,e/c.mp4"), "no trial is called e/c.mp4: did you mean b/c?")
    (tmp_path / "names.txt").write_text("\n")
    refused(extract("--trials-from", tmp_path / "names.txt"), "names.txt names no trial")
    # Other settings of the chosen ones alone are asked about; the others stay as they are.
    refused(extract("--audio-align", "end", "--trials", "a"), "mfcc of 1 done trial would be replaced (a)")
    assert extract("--audio-align", "end", "--trials", "d").exit_code == 0


def cut_off(store, *trials):
    """The last bytes of a shard are lost."""
    for trial in trials:
        shard = store / trial / "mfcc" / "c" / "0" / "0"
        shard.write_bytes(shard.read_bytes()[:-9])


def test_verify_says_what_makes_the_damaged_trials_anew(extract, invoke, videos, labelled, tmp_path):
    videos("a.mp4", "b c.mp4", "d.mp4", "e,f's.mp4")
    labels = labelled("la bels", **{"b c": 7})
    assert extract("--audio-align", "center", "--annotations", labels).exit_code == 0
    store = tmp_path / "s.zarr"
    cut_off(store, "a", "b c", "e,f's")
    damaged = invoke("verify", "--store", store)
    assert damaged.exit_code == 3
    printed, *commands = damaged.stderr.splitlines()
    assert printed == "how to fix:"
    assert json.loads(invoke("verify", "--store", store, "--json").stdout)["fix"] == [each.strip() for each in commands]
    # As they are said they are done: the trials are whole again, and the other one is left alone.
    before = (store / "d" / "zarr.json").stat().st_mtime_ns
    groups = FeatureStore(store).groups()
    script = "\n".join(["set -e", f'avfuse() {{ {shlex.quote(sys.executable)} -m avfuse "$@"; }}', *commands])
    subprocess.run(["sh", "-c", script], check=True, capture_output=True)
    assert invoke("verify", "--store", store).exit_code == 0
    assert FeatureStore(store).groups() == groups
    assert (store / "d" / "zarr.json").stat().st_mtime_ns == before


@pytest.fixture
def crops(tmp_path):
    """A folder of crops, one frame a trial."""

    def make(*trials):
        from PIL import Image

        for trial in trials:
            folder = tmp_path / trial
            folder.mkdir(parents=True)
            Image.fromarray(np.full((112, 112, 3), 99, np.uint8)).save(folder / "00001.jpg")
        return tmp_path / trials[0].split("/")[0]

    return make


VISUAL = ("--features", "iresnet50", "--untrained", "0", "--dry-run", "--aligned")


def test_crops_at_the_wrong_level(extract, videos, crops, tmp_path):
    videos("a.mp4", "b.mp4", "d.mp4")
    outer = crops("outer/cropped_aligned/a", "outer/cropped_aligned/b_left")
    printed = "crops for 0 of 3 trials: is it "
    refused(extract(*VISUAL, outer), f"{printed}one level down, in `cropped_aligned/`?")
    refused(extract(*VISUAL, outer / "cropped_aligned" / "a"), f"{printed}one level up? (--aligned {outer}")
    right = extract(*VISUAL, outer / "cropped_aligned")
    assert right.exit_code == 0
    assert "note: no crops for 1 of 3 trials: d\n" in right.stderr
    (tmp_path / "empty").mkdir()
    refused(extract(*VISUAL, tmp_path / "empty"), "crops for 0 of 3 trials")
    refused(extract(*VISUAL, crops("others/x", "others/y")), "has the folders x, y, the trials are a, b, d")


def test_annotations_of_other_names(extract, videos, labelled):
    videos("a.mp4", "b.mp4")
    for dry in (("--dry-run",), ()):
        name = f"other{len(dry)}"
        refused(
            extract("--annotations", labelled(name, video1=3), *dry),
            "labels for 0 of 2 trials: the annotations are of video1, the videos are a, b",
        )
    partly = extract("--annotations", labelled("some", b=3, gone=2), "--dry-run")
    assert partly.exit_code == 0
    assert "note: no labels for 1 of 2 trials, which get one row per frame: a\n" in partly.stderr
    assert "note: no video for 1 annotated trial: gone\n" in partly.stderr


def test_status_tells_each_trial_and_what_was_warned_of(extract, invoke, videos, tiny, tmp_path):
    videos("a.mp4")
    videos("silent.mp4", source=tiny(sound=False))
    assert extract().exit_code == 0
    printed = invoke("status", "--store", tmp_path / "s.zarr").stdout
    assert "warning: silent: no audio: its features are zero rows, all invalid" in printed
    table = invoke("status", "--store", tmp_path / "s.zarr", "--trials").stdout.splitlines()
    assert table[0].split() == [
        "trial",
        "rows",
        "length",
        "faces",
        "longest",
        "gap",
        "sound",
        *["longest", "gap", "warnings", "mfcc"],
    ]
    assert table[2].split() == ["silent", "10", "1.0", "s", "-", "-", "0.0%", "1.0", "s", "1", "done"]
    found = json.loads(invoke("status", "--store", tmp_path / "s.zarr", "--trials", "--json").stdout)
    assert found["warnings"]["silent"] == ["no audio: its features are zero rows, all invalid"]
    a, silent = found["by_trial"]
    assert a["rows"] == 10
    assert a["sound"] > 0
    assert (silent["sound"], silent["sound_gap_s"], silent["faces"]) == (0, pytest.approx(1.0), None)


def test_status_names_the_settings_that_differ(extract, invoke, videos, tmp_path):
    videos("a.mp4")
    assert extract().exit_code == 0
    videos("b.mp4")
    assert extract("--trials", "b", "--audio-align", "end").exit_code == 0
    printed = invoke("status", "--store", tmp_path / "s.zarr").stdout
    assert "different settings or weights: audio_align: start (1) / end (1)" in printed
