"""The pages in headless Chromium, opened from disk: no error, sort, search, seek, the box, a narrow screen."""

import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.browser


@pytest.fixture
def open_page(browser, whole_report):
    """Open a page of the report; at the end nothing may have gone wrong, and nothing asked for the network."""
    problems, contexts = [], []

    def visit(name="index.html", width=1280, height=900, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request",
            lambda asked: problems.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None,
        )
        page.goto(next(whole_report.glob(name)).as_uri())
        if name != "index.html":
            page.wait_for_selector("html[data-drawn=yes]", timeout=30_000)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert problems == []


def names(page):
    return page.eval_on_selector_all(
        "#trials tbody tr", "rows => rows.filter(r => !r.hidden).map(r => r.cells[0].innerText)"
    )


def now_s(page):
    return float(page.inner_text("#now").partition(" s")[0])


def test_the_table_sorts_by_number_and_name_with_what_is_not_known_last(open_page):
    page = open_page()
    page.click("th button:text('Frames')")
    frames = page.eval_on_selector_all("#trials tbody tr", "rows => rows.map(r => Number(r.cells[1].dataset.v))")
    assert frames == sorted(frames, reverse=True)
    page.focus("th button:text('Faces')")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    faces = page.eval_on_selector_all("#trials tbody tr", "rows => rows.map(r => r.cells[4].dataset.v)")
    known = [float(face) for face in faces if face]
    assert faces == faces[: len(known)] + [""] * 8
    assert known == sorted(known)
    assert page.get_attribute("th:has(button:text('Faces'))", "aria-sort") == "ascending"
    page.click("th button:text('Trial')")
    assert [name for name in names(page) if name.startswith("clip")] == [f"clip{n}" for n in range(8)]


def test_the_search_finds_names_and_warnings(open_page):
    page = open_page()
    page.fill("#search", "<SCRIPT>")
    assert names(page) == ["<script>hit=1; x"]
    assert page.inner_text("#count") == "1 of 12 trials"
    page.fill("#search", "odd vfr")
    assert names(page) == ["talk"]
    page.fill("#search", "nothing like it")
    assert names(page) == []
    page.fill("#search", "")
    assert len(names(page)) == 12


def test_a_trial_named_like_a_script_is_shown_and_not_run(open_page):
    page = open_page()
    page.click("a:text('<script>hit=1; x')")
    page.wait_for_selector("html[data-drawn=yes]")
    assert page.inner_text("h1") == "<script>hit=1; x"
    assert page.evaluate("typeof hit") == "undefined"
    assert page.eval_on_selector("#video", "video => video.error === null")


def test_a_click_on_the_time_line_seeks_and_the_box_follows(open_page):
    page = open_page("trials/talk-*.html")
    page.wait_for_function("document.getElementById('video').readyState > 1")
    area = page.eval_on_selector("#plot", "p => [p._fullLayout.xaxis._offset, p._fullLayout.xaxis._length]")
    box = page.locator("#plot").bounding_box()
    page.mouse.click(box["x"] + area[0] + area[1] * 0.75, box["y"] + 60)
    page.wait_for_function("Math.abs(document.getElementById('video').currentTime - 2.97) < 0.03")
    page.wait_for_function("!document.getElementById('video').seeking")
    assert now_s(page) == pytest.approx(2.96, abs=0.05)
    frame = int(page.input_value("#seek"))
    left = 10 + frame // 2
    assert page.get_attribute("#box", "data-box") == f"{left} 40 {left + 40} 80"
    assert page.locator("#cursor").bounding_box()["x"] == pytest.approx(box["x"] + area[0] + area[1] * 0.75, abs=15)


@pytest.mark.slow
def test_a_video_that_the_browser_cannot_show_is_said_to_be_one(
    browser, avfuse, corpus, make_clip, moving_frames, tone, tmp_path
):
    """HEVC, of which Chromium plays the sound alone."""
    (tmp_path / "videos").mkdir()
    options = ("-c:v", "libx265", "-x265-params", "log-level=none", "-pix_fmt", "yuv420p")
    make_clip("clip.mp4", moving_frames, samples=tone, options=options).rename(tmp_path / "videos" / "talk.mp4")
    words = ("report", "--store", corpus.store, "--trials", "talk", "--out", tmp_path / "r", "--no-crops")
    assert avfuse(*words, "--videos", tmp_path / "videos").exit_code == 0
    page = browser.new_page()
    page.goto(next((tmp_path / "r").glob("trials/talk-*.html")).as_uri())
    page.wait_for_selector("html[data-drawn=yes]", timeout=30_000)
    page.wait_for_selector("#unplayed:not([hidden])")
    page.focus("#seek")
    page.keyboard.press("End")
    assert now_s(page) == pytest.approx(3.96)
    page.close()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("late.webm", ("-c:v", "libvpx", "-b:v", "1M")),
        pytest.param("late.mkv", ("-pix_fmt", "yuv420p"), marks=pytest.mark.slow),
    ],
)
def test_a_container_whose_clock_begins_later(browser, avfuse, make_clip, moving_frames, tone, tmp_path, name, options):
    """A player counts from the container's zero, rows from the first stream's: the row that is named is shown."""
    made = make_clip(name, moving_frames, samples=tone, options=options, late_video_s=2.0, late_audio_s=2.0)
    (tmp_path / "videos").mkdir()
    shutil.copy(made, tmp_path / "videos" / name)
    words = ("--store", tmp_path / "s.zarr", "--videos", tmp_path / "videos")
    assert avfuse("extract", *words, "--features", "mfcc").exit_code == 0
    assert avfuse("report", *words, "--out", tmp_path / "r").exit_code == 0
    page = browser.new_page()
    page.goto(next((tmp_path / "r").glob("trials/late-*.html")).as_uri())
    page.wait_for_function("document.getElementById('video').readyState > 1")
    page.evaluate("document.getElementById('video').controls = false")  # they lie over the picture
    for pressed, row in (("End", 99), ("Home", 0), ("End", 99)):
        page.focus("#seek")
        page.keyboard.press(pressed)
        page.wait_for_function("!document.getElementById('video').seeking")
        page.wait_for_timeout(300)  # until the frame is painted
        assert f"row {row} of 100" in page.inner_text("#now")
        shot = np.asarray(Image.open(io.BytesIO(page.locator("#video").screenshot())).convert("L")).astype(int)
        columns = shot[shot.shape[0] // 2, : shot.shape[1]] > 100
        left_px = columns.argmax() * 160 / shot.shape[1]
        assert left_px == pytest.approx(10 + row // 2, abs=2)
    page.close()


@pytest.mark.slow
def test_the_cursor_moves_while_the_video_plays(open_page):
    page = open_page("trials/talk-*.html")
    page.wait_for_function("document.getElementById('video').readyState > 1")
    page.evaluate("const v = document.getElementById('video'); v.muted = true; v.play()")
    page.wait_for_function("parseFloat(document.getElementById('now').textContent) > 0.3")
    assert page.locator("#cursor").bounding_box()["x"] > page.locator("#plot").bounding_box()["x"] + 60


@pytest.mark.slow
def test_keys_on_the_slider_go_frame_by_frame_and_say_where_there_is_no_face(open_page):
    page = open_page("trials/talk-*.html")
    page.focus("#seek")
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    assert now_s(page) == pytest.approx(0.80)
    assert "no face" in page.get_attribute("#seek", "aria-valuetext")
    assert page.inner_text(".tile.now").startswith("no face")
    page.keyboard.press("End")
    assert now_s(page) == pytest.approx(3.96)
    page.click("#sheet .tile >> nth=3")
    assert now_s(page) < 1


@pytest.mark.slow
def test_lines_can_be_hidden_by_their_legend(open_page):
    page = open_page("trials/clip3-*.html")
    shown = "document.getElementById('plot')._fullData.filter(t => t.visible === true).map(t => t.name)"
    assert page.evaluate(shown) == ["label", "run (held out)"] * 2
    page.click("#legend button:text('label')")
    assert page.evaluate(shown) == ["run (held out)"] * 2
    assert page.get_attribute("#legend button:text('label')", "aria-pressed") == "false"


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    ["index.html", *(pytest.param(each, marks=pytest.mark.slow) for each in ("runs.html", "trials/talk-*.html"))],
)
def test_nothing_hangs_over_a_narrow_screen(open_page, name, scheme):
    page = open_page(name, width=400, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    grey = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in (ink, paper)]
    assert (grey[0] < 60 and grey[1] > 200) if scheme == "light" else (grey[0] > 200 and grey[1] < 60)


@pytest.mark.slow
def test_the_page_of_runs_draws_its_curves(open_page):
    page = open_page("runs.html")
    assert page.evaluate("document.querySelector('[data-plot=curves0]')._fullData.length") == 2
    assert "finished" in page.inner_text("table")
    ticks = page.eval_on_selector_all("[data-plot=curves0] .xtick text", "all => all.map(t => t.textContent)")
    assert len(ticks) > 1
    assert all(tick.isdigit() for tick in ticks), ticks
