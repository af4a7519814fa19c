"""The files of a report: which there are, what they say, how large they are, what is refused."""

import html
import json
import re
import shutil
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from avfuse.apps.report.systems import MOST_SYSTEMS
from avfuse.apps.report.write import _WARNING_LETTERS, templates
from avfuse.features_store.schema import JsonValue
from avfuse.features_store.store import FeatureStore


class Read(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag, key):
        return [about[key] for name, about in self.tags if name == tag and key in about]


def page_of(report, name):
    index = (report / "index.html").read_text(encoding="utf-8")
    return report / re.findall(rf'href="(trials/{name}[^"]*\.html)"', index)[0]


def test_every_trial_has_a_line_and_a_page_and_every_link_leads_somewhere(whole_report, corpus):
    index = Read(whole_report / "index.html")
    pages = [link for link in index.of("a", "href") if link.startswith("trials/")]
    assert len(pages) == len(set(pages)) == len(FeatureStore(corpus.store).trials()) == 12
    for path in [whole_report / "index.html", whole_report / "runs.html", *(whole_report / page for page in pages)]:
        read = Read(path)
        links = [*read.of("a", "href"), *read.of("link", "href"), *read.of("script", "src")]
        for link in links:
            assert link.startswith(("#", "data:")) or (path.parent / link).is_file(), (path.name, link)
        assert not re.search(r"(?:src|href|url)\W{0,2}https?:", path.read_text(encoding="utf-8"))


def test_names_and_warnings_are_text_and_never_tags(whole_report):
    own = {"plotly.min.js", "plots.js", "table.js"}
    for path in [*whole_report.glob("*.html"), *whole_report.glob("trials/*.html")]:
        read = Read(path)
        for tag, about in read.tags:
            if tag == "script":
                assert about.get("type") == "application/json" or about["src"].rpartition("/")[2] in own
            assert not [key for key in about if key.startswith("on")]
        assert "b" not in {tag for tag, _ in read.tags} or path.name == "index.html"
    text = Read(whole_report / "index.html").text
    assert "<script>hit=1; x" in text
    assert "a'b\"c & {{ d }}" in text
    assert "Ünï 字 #1?%41" in text


def test_control_characters_in_a_name_are_spelled(avfuse, tmp_path):
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    store.write("evil\u202egpj", {"time": np.arange(3.0)}, {"warnings": ["bad \x1b[31m word"]})
    assert avfuse("report", "--store", tmp_path / "s.zarr", "--out", tmp_path / "r").exit_code == 0
    for path in (tmp_path / "r").rglob("*.html"):
        assert not set("\u202e\x1b") & set(path.read_text(encoding="utf-8"))
    assert "evil\\u202egpj" in (tmp_path / "r" / "index.html").read_text(encoding="utf-8")


def test_the_index_has_what_the_store_says(whole_report):
    text = Read(whole_report / "index.html").text
    row = text[text.index("talk") :].split("\n")
    words = " ".join(row[:12])
    assert "100" in words
    assert "25 VFR" in words
    assert "85.0%" in words
    assert "0.60 s" in words
    assert "+0.040 s" in words


def test_a_trials_page_holds_its_lines_gaps_and_boxes(whole_report):
    page = page_of(whole_report, "talk").read_text(encoding="utf-8")
    found = re.search(r'id="data">(.*?)</script>', page)
    assert found is not None
    data = json.loads(found[1])
    lanes = {lane["title"]: lane for lane in data["lanes"]}
    assert list(lanes) == ["Face score", "Loudness, dB", "Valence", "Arousal"]
    assert lanes["Face score"]["gaps"] == [[0.8, 1.4]]
    assert [line["name"] for line in lanes["Valence"]["lines"]] == ["run (not seen)"]
    assert len(lanes["Valence"]["lines"][0]["y"]) == 100
    assert data["video"] == {"width_px": 160, "height_px": 120}
    labelled = json.loads(re.findall(r'id="data">(.*?)</script>', page_of(whole_report, "clip3").read_text())[0])
    valence = labelled["lanes"][0]
    assert [(line["name"], line["kind"]) for line in valence["lines"]] == [
        ("label", "truth"),
        ("run (held out)", "run"),
    ]
    assert valence["lines"][0]["y"][40:50] == [None] * 10


def test_the_offset_of_the_sound_stands_in_the_index_and_on_the_page(avfuse, plant_talk, tmp_path):
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    about: dict[str, JsonValue] = {"audio": "present"}
    store.write("late", plant_talk(late_s=0.2), about)
    store.write("in step", plant_talk(), about)
    store.write("another's voice", plant_talk(voice=6), about)
    store.write("mute", plant_talk(), {"audio": "absent"})
    store.write("numbers", {"time": np.arange(30) / 30}, about)
    assert avfuse("report", "--store", tmp_path / "s.zarr", "--out", tmp_path / "r").exit_code == 0
    index = (tmp_path / "r" / "index.html").read_text()
    rows = {
        re.findall(r"<a [^>]*>(.*?)</a>", row)[0]: row
        for row in re.split(r"<tr(?= data-|>\n<th scope=\"row\")", index)[1:]
    }
    said = {html.unescape(name): re.findall(r"<td[^>]*>(.*?)</td>", row)[7] for name, row in rows.items()}
    assert said == {
        "late": "+0.20 s", "in step": "+0.00 s", "another's voice": "not sure", "mute": "not sure", "numbers": "–"
    }  # fmt: skip
    assert [name for name, row in rows.items() if "out of sync" in row] == ["late"]
    for name, words in (
        ("late", "+0.20 s, sure (confidence"),
        ("mute", "not sure (no sound)"),
        ("numbers", "not compared"),
    ):
        assert words in Read(page_of(tmp_path / "r", name)).text


def test_a_report_is_replaced_and_other_files_are_not(avfuse, corpus, tmp_path):
    words = ("report", "--store", corpus.store, "--out", tmp_path / "r", "--trials", "clip0,clip3")
    assert avfuse(*words).exit_code == 0
    before = sorted(path.name for path in (tmp_path / "r").rglob("*.html"))
    assert len(before) == 3
    again = avfuse(*words)
    assert (again.exit_code, sorted(path.name for path in (tmp_path / "r").rglob("*.html"))) == (0, before)
    (tmp_path / "r" / "mine.txt").touch()
    refused = avfuse(*words)
    assert refused.exit_code == 1
    assert "mine.txt" in refused.stderr
    assert avfuse(*words[:-1], "clip99").exit_code == 1
    assert avfuse("report", "--store", corpus.store, "--out", corpus.store / "r").exit_code == 1


def test_videos_can_be_copied_and_those_that_are_not_there_are_named(avfuse, corpus, make_report, tmp_path):
    report = make_report("--videos", corpus.videos, "--copy-videos")
    assert len(list((report / "videos").glob("*.mp4"))) == 4
    assert "../videos/talk-" in page_of(report, "talk").read_text()
    shutil.copytree(corpus.videos, tmp_path / "videos")
    (tmp_path / "videos" / "talk.mp4").write_bytes(b"not a video")
    words = ("report", "--store", corpus.store, "--out", tmp_path / "r", "--videos", tmp_path / "videos")
    made = avfuse(*words, "--trials", "talk,clip0")
    assert made.exit_code == 0
    assert "talk: the video cannot be read" in made.stderr
    assert "another size" in made.stderr
    assert "does not have the video of clip0" in made.stderr
    assert avfuse(*words[:-1], tmp_path / "nowhere").exit_code == 1


def test_a_broken_trial_is_named_and_the_others_have_their_pages(avfuse, corpus, tmp_path):
    shutil.copytree(corpus.store, tmp_path / "s.zarr")
    for path in (tmp_path / "s.zarr" / "talk" / "face_score").rglob("*"):
        if path.is_file() and path.name != "zarr.json":
            path.write_bytes(path.read_bytes()[:-9] + b"\0" * 9)
    made = avfuse("report", "--store", tmp_path / "s.zarr", "--out", tmp_path / "r", "--trials", "talk,clip0")
    assert made.exit_code == 3
    assert "talk: cannot be read" in made.stderr
    assert len(list((tmp_path / "r" / "trials").glob("*.html"))) == 2


@pytest.mark.parametrize("array", ["time", "face_score", "face_box"])
def test_an_array_that_is_gone_is_a_line_and_the_other_pages_are_written(avfuse, corpus, tmp_path, array):
    shutil.copytree(corpus.store, tmp_path / "s.zarr")
    shutil.rmtree(tmp_path / "s.zarr" / "talk" / array)
    made = avfuse("report", "--store", tmp_path / "s.zarr", "--out", tmp_path / "r")
    assert made.exit_code == 3
    assert re.search(rf"note: talk: cannot be read: .*{array}.*; `avfuse verify` says how to fix it", made.stderr)
    assert len(list((tmp_path / "r" / "trials").glob("*.html"))) == 12
    assert "cannot be read" in page_of(tmp_path / "r", "talk").read_text()


def test_systems_stand_side_by_side_with_the_means_of_their_runs(avfuse, corpus, tmp_path):
    for place in ("one/fold0/seed0", "one/fold0/seed1", "two"):
        shutil.copytree(corpus.run, tmp_path / place)
    metrics = tmp_path / "one/fold0/seed1/metrics.json"
    known = json.loads(metrics.read_text())
    metrics.write_text(json.dumps({**known, "P": known["P"] + 0.5}))
    words = ("--run", tmp_path / "one", "--run", tmp_path / "two", "--annotations", corpus.annotations)
    assert avfuse("report", "--store", corpus.store, "--out", tmp_path / "r", "--device", "cpu", *words).exit_code == 0
    table = (tmp_path / "r" / "runs.html").read_text().split("<h2>All systems</h2>")[1].split("</table>")[0]
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)</t", row) for row in table.split("<tr>")[2:]]
    assert [row[:4] for row in rows] == [
        ["one", "2 of 2", f"{known['P'] + 0.25:.3f}", f"{0.5 / 2**0.5:.3f}"],
        ["two", "1 of 1", f"{known['P']:.3f}", "–"],
    ]


def test_a_run_whose_features_are_not_there_is_named(avfuse, corpus, tmp_path):
    shutil.copytree(corpus.store, tmp_path / "s.zarr")
    assert avfuse("remove", "--store", tmp_path / "s.zarr", "--feature", "voice").exit_code == 0
    words = ("--run", corpus.run, "--annotations", corpus.annotations, "--device", "cpu")
    made = avfuse("report", "--store", tmp_path / "s.zarr", "--out", tmp_path / "r", *words)
    assert made.exit_code == 0
    assert "note: nothing is predicted by run: it takes voice, which 12 trials lack: " in made.stderr


def test_an_index_of_600_trials_and_twelve_systems_has_less_than_a_megabyte():
    """The template with what `_index_row` makes at most: long warnings, and scores of runs that have not seen it."""
    row = {
        **{"slug": "batch1-123-30-1920x1080-0123456789", "frames": 18000, "length_s": 600.6, "rate_hz": 29.97},
        **{"vfr": True, "faces": 0.97, "gap_s": 1.2, "audio": True, "sound": 0.99, "starts_s": 0.02, "sync": None},
        **{"late": False, "words": "vfr", "warnings": 2, "said": "w" * _WARNING_LETTERS},
        **{"scores": [(-0.123, "not seen")] * 2 * MOST_SYSTEMS},
    }
    rows = [{**row, "name": f"batch1/{number}-30-1920x1080"} for number in range(600)]
    lists: dict[str, Any] = {"failed": [], "missing": [], "incomplete": [], "features": {}}
    summary = {"store": "x", "trials": 600, "rows": 1, "hours": 1.0, **lists}
    systems = [{"name": f"system {number}", "scores": ["V", "A"]} for number in range(MOST_SYSTEMS)]
    about = {"made": {"avfuse": "0", "time": "t", "command": "c"}, "untrained": [], "has_runs": True}
    page = (
        templates().get_template("index.html").render(rows=rows, summary=summary, systems=systems, chosen=600, **about)
    )
    assert len(page.encode()) < 1e6


@pytest.mark.slow
def test_600_trials_make_an_index_of_less_than_a_megabyte(avfuse, tmp_path):
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    about: dict[str, JsonValue] = {
        "fps": "30000/1001",
        "vfr": True,
        "audio": "present",
        "video_start_s": 0.0,
        "audio_start_s": 0.02,
    }
    for number in range(600):
        arrays: dict[str, np.ndarray] = {"time": np.arange(30) / 30, "face_score": np.ones(30, np.float32)}
        store.write(f"batch{number % 3}/{number}-30-1920x1080", arrays, {**about, "warnings": ["sound moved " * 30]})
    assert avfuse("report", "--store", tmp_path / "s.zarr", "--out", tmp_path / "r").exit_code == 0
    assert (tmp_path / "r" / "index.html").stat().st_size < 1e6
