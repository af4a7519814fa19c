"""Features one at a time: what is there keeps its bytes, what it takes is read back, and the rows are the same."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from avfuse.features_store.records.failures import outstanding
from avfuse.features_store.records.verify import verify
from avfuse.features_store.schema import FORMAT_KEY
from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.extraction import visual
from avfuse.pipeline.media.readers import FrameReader

CLIPS = ("real/pyfeat_single_face.mp4", "real/grid_bbaf2n.mpg")
FEATURES = ("fake_face", "crop48", "fake_sound", "mfcc", "logmel", "crop112")


@pytest.fixture(scope="module")
def videos(tmp_path_factory, media, ffmpeg_run):
    """The first second of the clips, and a little more: faces are looked for all over the picture twice."""
    folder: Path = tmp_path_factory.mktemp("adding") / "videos"
    folder.mkdir()
    for clip in CLIPS:
        ffmpeg_run("-i", media / clip, "-t", "1.1", "-c", "copy", folder / Path(clip).name)
    return folder


@pytest.fixture(scope="module")
def extract(avfuse, videos):
    """`extract` of the beginnings of real clips into a store."""

    def run(store: Path, *words):
        folders = ("--videos", videos, "--store", store)
        result = avfuse("extract", *folders, "--device", "cpu", "--untrained", "0", "--json", *words)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


@pytest.fixture(scope="module")
def at_once(extract, tmp_path_factory):
    store = tmp_path_factory.mktemp("stores") / "s.zarr"
    extract(store, "--features", ",".join(FEATURES))
    return FeatureStore(store)


def files_of(store, *arrays):
    """Inode, time and bytes of every file below the arrays of every trial."""
    found = {}
    for trial in FeatureStore(store):
        for array in arrays:
            for path in sorted(Path(store, trial, array).rglob("*")):
                if path.is_file():
                    status = path.stat()
                    found[path] = (status.st_ino, status.st_mtime_ns, path.read_bytes())
    return found


def same(one: FeatureStore, other: FeatureStore):
    """Every array bit for bit, and every fingerprint."""
    assert one.trials() == other.trials()
    for name, trial in one.items():
        assert dict(trial.checksums) == dict(other[name].checksums)
        prints = [{key: entry["fingerprint"] for key, entry in each.entries.items()} for each in (trial, other[name])]
        assert prints[0] == prints[1]
    assert list(verify(other)) == []


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(FEATURES, marks=pytest.mark.slow),
        pytest.param(("logmel", "crop112", "mfcc", "fake_sound", "crop48", "fake_face"), marks=pytest.mark.slow),
        ("mfcc,crop48", "fake_face", "crop112"),
    ],
    ids=["faces first", "sound first", "together"],
)
def test_one_after_the_other_comes_to_the_same_as_all_at_once(extract, at_once, tmp_path, monkeypatch, order):
    store = tmp_path / "s.zarr"
    searches: list[object] = []
    detected = visual.detected_faces

    def counted(*words):
        searches.append(words)
        return detected(*words)

    monkeypatch.setattr(visual, "detected_faces", counted)
    for names in order:
        before = files_of(store, *FEATURES, *(f"{name}_valid" for name in FEATURES), "time") if store.exists() else {}
        track = files_of(store, "face_box", "face_landmarks", "face_score") if store.exists() else {}
        extract(store, "--features", names)
        after = files_of(
            store,
            *FEATURES,
            *(f"{name}_valid" for name in FEATURES),
            "time",
            "face_box",
            "face_landmarks",
            "face_score",
        )
        assert {**before, **track}.items() <= after.items()
    left = [name for name in FEATURES if name not in ",".join(order).split(",")]
    if left:
        extract(store, "--features", ",".join(left))
    same(at_once, FeatureStore(store))
    assert len(searches) == len(CLIPS)  # each face was looked for once


def test_frames_are_decoded_only_where_faces_are_cut_out(extract, at_once, tmp_path, monkeypatch):
    store = shutil.copytree(at_once.path, tmp_path / "s.zarr")
    for feature in ("mfcc", "crop48"):
        for trial in FeatureStore(store):
            FeatureStore(store, mode="a").remove_feature(trial, feature)
    opened = []

    def counted(*words, **more):
        opened.append(more)
        return FrameReader(*words, **more)

    monkeypatch.setattr(visual, "FrameReader", counted)
    extract(store, "--features", "mfcc")
    assert opened == []
    extract(store, "--features", "crop48")
    assert [each["pixels"] for each in opened] == [True, True]
    same(at_once, FeatureStore(store))


@pytest.mark.slow
def test_the_network_of_faces_sees_the_same_faces(extract, tmp_path, face_weights):
    """Bit for bit, on the CPU."""
    words = ("--trials", "grid_bbaf2n", "--weights", f"iresnet50={face_weights()}")
    extract(tmp_path / "once.zarr", "--features", "crop48,iresnet50", *words)
    extract(tmp_path / "later.zarr", "--features", "crop48", *words)
    extract(tmp_path / "later.zarr", "--features", "iresnet50", *words)
    same(FeatureStore(tmp_path / "once.zarr"), FeatureStore(tmp_path / "later.zarr"))


@pytest.mark.parametrize(
    ("missing", "order"),
    [
        pytest.param(
            "repeat", ("mfcc", "fake_face", "crop112", "fake_sound", "logmel", "crop48"), marks=pytest.mark.slow
        ),
        pytest.param("zero", ("mfcc,crop112", "fake_face,logmel", "fake_sound,crop48"), marks=pytest.mark.slow),
        ("zero", ("mfcc,crop48", "fake_face")),
    ],
    ids=["repeat", "zero", "fewer, zero"],
)
def test_labels_that_are_shorter_or_longer(extract, tmp_path, missing, order):
    """Faces past the last label do not count, whenever a feature is added; rows past the video repeat the last."""
    labels = tmp_path / "labels"
    for part, rows in (("Train_Set", 20), ("Validation_Set", 40)):
        (labels / "VA_Estimation_Challenge" / part).mkdir(parents=True)
        name = {"Train_Set": "pyfeat_single_face", "Validation_Set": "grid_bbaf2n"}[part]
        (labels / "VA_Estimation_Challenge" / part / f"{name}.txt").write_text("valence,arousal\n" + "0,0\n" * rows)
    words = ("--annotations", labels, "--missing-face", missing)
    once, later = tmp_path / "once.zarr", tmp_path / "later.zarr"
    extract(once, "--features", ",".join(order), *words)
    for names in order:
        extract(later, "--features", names, *words)
    same(FeatureStore(once), FeatureStore(later))
    assert {trial.rows for trial in FeatureStore(once).values()} == {20, 40}


@pytest.mark.slow
def test_every_person_gets_it(extract, tmp_path):
    everybody = ("--face", "all", "--trials", "pyfeat_single_face")
    extract(tmp_path / "once.zarr", "--features", "fake_face,crop48,mfcc", *everybody)
    for name in ("fake_face", "mfcc", "crop48"):
        extract(tmp_path / "later.zarr", "--features", name, *everybody)
    same(FeatureStore(tmp_path / "once.zarr"), FeatureStore(tmp_path / "later.zarr"))
    before = files_of(tmp_path / "later.zarr", "crop48", "mfcc", "fake_face", "time")
    assert extract(tmp_path / "later.zarr", "--features", "crop48,mfcc", *everybody)["done_before"] == 1
    assert files_of(tmp_path / "later.zarr", "crop48", "mfcc", "fake_face", "time") == before


@pytest.mark.slow
def test_the_organisers_crops(extract, tmp_path, at_once):
    crops = tmp_path / "crops"
    from PIL import Image

    for name, trial in at_once.items():
        (crops / name).mkdir(parents=True)
        for row in range(0, trial.rows, 2):
            Image.fromarray(np.asarray(trial["crop112"][row])).save(crops / name / f"{row + 1:05d}.jpg")
    words = ("--aligned", crops)
    extract(tmp_path / "once.zarr", "--features", "fake_face,crop48,fake_sound", *words)
    for name in ("fake_sound", "crop48", "fake_face"):
        extract(tmp_path / "later.zarr", "--features", name, *words)
    same(FeatureStore(tmp_path / "once.zarr"), FeatureStore(tmp_path / "later.zarr"))
    assert np.isnan(np.asarray(FeatureStore(tmp_path / "later.zarr")["grid_bbaf2n"]["face_box"])).all()


def rewrite_time(store, trial, change):
    """Stored times other than those that decode now, as another ffmpeg may have given them."""
    found = FeatureStore(store, mode="a")
    before = found[trial]
    arrays = {name: before.read(name) for name in before}
    arrays["time"] = change(arrays["time"])
    found.write(trial, arrays, before.attributes)


def test_frames_that_no_longer_have_the_stored_times(avfuse, videos, at_once, tmp_path):
    """A named failure that says what to do; the trial stays as it was."""
    store = shutil.copytree(at_once.path, tmp_path / "s.zarr")
    for trial in FeatureStore(store):
        FeatureStore(store, mode="a").remove_feature(trial, "crop48")

    def later(time_s):
        time_s[7] += 0.004
        return time_s

    rewrite_time(store, "grid_bbaf2n", later)
    words = ("--videos", videos, "--store", store, "--features", "crop48", "--device", "cpu")
    result = avfuse("extract", *words, "--json")
    assert result.exit_code == 3
    (failure,) = json.loads(result.stdout)["failed"]
    assert (failure["trial"], failure["stage"]) == ("grid_bbaf2n", "video")
    assert failure["reason"].startswith("frame 7 lies at 0.28")
    assert "in the store; was it extracted with another ffmpeg?" in failure["reason"]
    assert FeatureStore(store)["grid_bbaf2n"].features == ["crop112", "fake_face", "fake_sound", "logmel", "mfcc"]
    assert [each.features for each in outstanding(FeatureStore(store))] == [["crop48"]]
    again = json.loads(
        avfuse("extract", *words, "--json").stdout
    )  # left alone until the file changes, or it is asked for
    assert (again["extracted"], [each["trial"] for each in again["failed"]]) == ([], ["grid_bbaf2n"])
    assert "crop48" in FeatureStore(store)["pyfeat_single_face"]
    everything = ("--overwrite", "--trials", "grid_bbaf2n", "--features", ",".join(FEATURES))
    assert avfuse("extract", *words, *everything, "--retry-failed").exit_code == 0
    same(at_once, FeatureStore(store))


@pytest.fixture
def format_1(tmp_path):
    """A store that the release before wrote, and its video."""
    return shutil.copytree(Path(__file__).parents[2] / "data" / "format1", tmp_path / "old")


def test_a_store_of_format_1_reads_verifies_and_grows(format_1, avfuse):
    store, words = format_1 / "features.zarr", ("--videos", format_1 / "videos", "--device", "cpu", "--untrained", "0")
    found = FeatureStore(store)
    assert found.format == 1
    doctor = avfuse("doctor", "--store", store).stdout
    assert "format 1, 2 trials; read as it is, and made format 2 by the first run that adds to it" in " ".join(
        doctor.split()
    )
    assert found.trials() == ["b/clip", "clip"]
    assert found["clip"].features == ["iresnet50", "mfcc", "vggish"]
    assert found["clip"].read("iresnet50").shape == (10, 512)
    assert list(verify(found)) == []
    assert json.loads(avfuse("status", "--store", store, "--json").stdout)["features"]["vggish"]["trials"] == 2
    before = files_of(store, "iresnet50", "mfcc", "vggish", "time", "face_box")
    names = ("--store", store, "--features", "iresnet50,mfcc,vggish", "--json")
    assert json.loads(avfuse("extract", *words, *names).stdout)["done_before"] == 2
    assert FeatureStore(store).format == 1  # nothing was added
    refused = avfuse("extract", *words, "--store", store, "--features", "mfcc", "--audio-align", "end")
    assert "audio_align: start in the store, end now" in refused.stderr
    added = json.loads(avfuse("extract", *words, "--store", store, "--features", "fake_face,logmel", "--json").stdout)
    assert [each["added"] for each in added["extracted"]] == [True, True]
    grown = FeatureStore(store)
    assert grown.format == json.loads((store / "zarr.json").read_text())["attributes"][FORMAT_KEY] == 2
    assert files_of(store, "iresnet50", "mfcc", "vggish", "time", "face_box") == before
    attributes = grown["clip"].attributes
    assert not {"fingerprint", "algorithm", "settings", "weights"} & set(attributes)
    assert grown["clip"].entries["iresnet50"]["weights"]["untrained"] is True
    assert json.loads(avfuse("extract", *words, *names).stdout)["done_before"] == 2
    assert list(verify(grown)) == []


def test_what_a_killed_addition_left_is_replaced(extract, at_once, tmp_path):
    """Arrays that are not on the trial's list are not there, whatever lies in their folders."""
    store = shutil.copytree(at_once.path, tmp_path / "s.zarr")
    for trial in FeatureStore(store):
        FeatureStore(store, mode="a").remove_feature(trial, "mfcc")
    shutil.copytree(store / "grid_bbaf2n" / "time", store / "grid_bbaf2n" / "mfcc")
    (store / "pyfeat_single_face" / "mfcc").mkdir()
    assert "mfcc" not in FeatureStore(store)["grid_bbaf2n"]
    extract(store, "--features", "mfcc")
    same(at_once, FeatureStore(store))
    assert os.listdir(store / ".tmp") == [] if (store / ".tmp").exists() else True
