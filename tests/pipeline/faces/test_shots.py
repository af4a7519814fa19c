"""Where a shot begins: light, flashes and glitches are no cuts, and cuts are still found."""

import numpy as np
import pytest

from avfuse.pipeline.faces.shots import CUT_LEVELS, GLITCH_S, SAME_EDGES, CutFinder, with_cuts, without_glitches
from avfuse.pipeline.media.types import FrameBatch


def scene(seed, height=72, width=96):
    """A picture of coarse patches."""
    patches = np.random.default_rng(seed).integers(30, 200, (height // 6, width // 6, 1), dtype=np.uint8)
    return np.repeat(np.repeat(patches, 6, axis=0), 6, axis=1).repeat(3, axis=2)


A, B, C = scene(0), scene(1), scene(2)
WHITE, BLACK = np.full_like(A, 255), np.zeros_like(A)
NOISE = [np.random.default_rng(9 + n).integers(0, 256, A.shape, dtype=np.uint8) for n in range(16)]
DARK = (A * 0.15).astype(np.uint8)
BRIGHT = np.clip(A * 1.8 + 50.0, 0, 255).astype(np.uint8)


def cuts_of(frames, fps=25.0, batch=4):
    """The frames that begin a shot, read in batches."""
    times = np.arange(len(frames)) / fps
    parts = [slice(start, start + batch) for start in range(0, len(frames), batch)]
    found = list(with_cuts(FrameBatch(np.stack(frames[part]), times[part]) for part in parts))
    assert np.concatenate([each.time_s for each, _ in found]).tolist() == times.tolist()
    return np.flatnonzero(np.concatenate([cuts for _, cuts in found])).tolist()


@pytest.mark.parametrize("fps", [25.0, 1.0])
@pytest.mark.parametrize("batch", [1, 2, 4, 32])
@pytest.mark.parametrize("odd", [WHITE, BLACK, NOISE[0], BRIGHT, DARK, 255 - A, B], ids=lambda frame: int(frame.mean()))
def test_one_odd_frame_is_no_cut(odd, batch, fps):
    for at in range(3, 9):  # at each place of a batch
        frames = [A] * 16
        frames[at] = odd
        assert cuts_of(frames, fps, batch) == []


@pytest.mark.parametrize("length", [2, 5, 30])
@pytest.mark.parametrize("light", [WHITE, BLACK, BRIGHT, DARK], ids=["white", "black", "bright", "dark"])
def test_light_is_no_cut_however_long(light, length):
    assert cuts_of([A] * 5 + [light] * length + [A] * 5) == []


def test_a_glitch_of_half_a_second_is_no_cut_and_a_longer_one_is():
    assert cuts_of([A] * 20 + [B] * 12 + [A] * 20, batch=32) == []
    assert cuts_of([A] * 20 + NOISE[:10] + [A] * 20, batch=32) == []
    assert cuts_of([A] * 20 + [B] * 14 + [A] * 20, batch=32) == [20, 34]
    assert GLITCH_S == 0.5  # 12 frames of 25: nobody can tell who is on a picture shown for less


@pytest.mark.parametrize("batch", [1, 3, 32])
@pytest.mark.parametrize("fps", [25.0, 1.0])
def test_cuts_are_found(batch, fps):
    assert cuts_of([A] * 15 + [B] * 15 + [C] * 15, fps, batch) == [15, 30]
    assert cuts_of([A] * 15 + [B] * 15 + [A] * 15, fps, batch) == [15, 30]


def test_a_cut_through_black_is_at_the_first_picture_after_it():
    assert cuts_of([A] * 5 + [BLACK] * 3 + [B] * 5) == [8]
    assert cuts_of([BLACK] * 5 + [B] * 5) == [5]


def test_a_frame_that_stays_about_another_picture_hides_no_cut():
    """Black borders, a station's logo: they have the same edges in every shot."""
    framed = [np.pad(each, ((10, 10), (20, 20), (0, 0))) for each in (A, B)]
    for each in framed:
        each[:10, ::8] = 255
    assert cuts_of([framed[0]] * 5 + [framed[1]] * 5) == [5]


def test_the_last_frame_is_remembered_from_batch_to_batch():
    find = CutFinder()
    assert find(np.stack([A, A, B, B])) == [0, 0, 1, 0]
    assert find(B[None]) == [0]
    assert find(np.stack([B, B])) == [0, 0]
    assert find(C[None]) == [1]
    assert find(A[None]) == [-2]


def test_the_whole_picture_decides_and_not_its_corner():
    one, other = A.copy(), B.copy()
    one[:12, :12] = other[:12, :12] = 77
    assert CutFinder()(np.stack([one, other])) == [0, 1]
    one, other = A.copy(), A.copy()
    other[:3, :3] = 255 - other[:3, :3]
    assert CutFinder()(np.stack([one, other])) == [0, 0]


@pytest.mark.parametrize("size", [(32, 32), (20, 64), (1, 1), (1, 30), (97, 49)])
def test_small_frames(size):
    rng = np.random.default_rng(3)
    one, other = rng.integers(0, 100, (*size, 3), np.uint8), rng.integers(155, 256, (*size, 3), np.uint8)
    assert len(CutFinder()(np.stack([one, other]))) == 2
    assert CutFinder()(np.stack([one, one])) == [0, 0]
    if size == (32, 32):
        assert CutFinder()(np.stack([one, other])) == [0, 1]


def test_how_much_a_picture_has_to_change():
    """Talking heads change it by less than 10 levels, also at 1 frame/s; a cut by 30 and more."""
    assert 10 < CUT_LEVELS < 30
    half = A.copy()
    half[: len(A) // 4] = B[: len(A) // 4]  # a quarter of another picture: 13 levels
    assert 8 < np.abs(half.astype(float) - A).mean() < CUT_LEVELS
    assert CutFinder()(np.stack([A, half])) == [0, 0]
    most = A.copy()
    most[len(A) // 4 :] = B[len(A) // 4 :]
    assert np.abs(most.astype(float) - A).mean() > CUT_LEVELS
    assert CutFinder()(np.stack([A, most])) == [0, 1]


def test_edges_that_are_shared_in_part():
    """Half of two pictures' contrast in common: the same scene in another light, with shadows. A fifth: another one."""
    own, other = (each.astype(float) - 115 for each in (B, C))
    for share, cut in ((0.65, 0), (0.15, 1)):
        changed = np.clip((own * share + other * (1 - share)) * 1.2 + 165, 0, 255).astype(np.uint8)
        first = np.clip(own * 0.9 + 80, 0, 255).astype(np.uint8)
        assert CutFinder()(np.stack([first, changed])) == [0, cut]
    assert 0.15 < SAME_EDGES < 0.6


@pytest.mark.parametrize(("alike", "cut"), [(0.31, 1), (0.39, 0)])
def test_edges_decide_in_the_middle_between_other_shots_and_other_light(alike, cut):
    """Below 0.15 between shots, above 0.6 in another light."""
    own, other = np.random.default_rng(4).choice([-30.0, 30.0], (2, 48, 48, 1))
    pictures = np.stack([80 + own, 175 + alike * own + np.sqrt(1 - alike**2) * other]).round().astype(np.uint8)
    (edges, their_edges) = np.diff(pictures[..., 0].astype(float), axis=1).reshape(2, -1)
    assert np.corrcoef(edges, their_edges)[0, 1] == pytest.approx(alike, abs=0.03)
    assert CutFinder()(pictures.repeat(3, axis=3)) == [0, cut]


@pytest.mark.parametrize(("grain", "blank"), [(2.9, True), (3.5, False)])
def test_the_grain_of_a_black_frame_is_nothing_to_be_seen(grain, blank):
    """3 levels in each colour make edges of 1.9; the emptiest pictures of real recordings, a wall, have 2.2."""
    dark = np.random.default_rng(5).normal(16, grain, (48, 48, 3)).clip(0, 255).round().astype(np.uint8)
    bright = scene(0, 48, 48)
    assert CutFinder()(np.stack([bright, dark, dark, bright])) == ([0, 0, 0, 0] if blank else [0, 1, 0, -1])


@pytest.mark.parametrize(("length", "last"), [(15, -15), (16, 1)])
def test_what_came_before_half_a_second_of_noise_at_30_frames_a_second_is_known(length, last):
    """Each frame of it is a picture of its own. More are not held: each is compared with all that are."""
    assert CutFinder()(np.stack([A, *NOISE[:length], A]))[-1] == last


def test_uneven_light_that_the_edges_hardly_tell_from_a_cut():
    """They say "the same" of one neighbour and "another" of the other: what was before the light decides."""
    own, other = (each.astype(float) - 115 for each in (B, C))
    first = np.clip(own * 0.9 + 80, 0, 255).astype(np.uint8)
    noise = np.random.default_rng(4).normal(0, 15, (12, 16, 1)).repeat(6, axis=0).repeat(6, axis=1)
    noisy = np.clip(first + noise, 0, 255).astype(np.uint8)
    lit = np.clip((own * 0.27 + other * 0.73) * 1.2 + 165, 0, 255).astype(np.uint8)
    assert CutFinder()(np.stack([first, lit])) == [0, 1]
    assert CutFinder()(np.stack([noisy, lit])) == [0, 0]
    assert cuts_of([first] * 5 + [lit] + [noisy] * 5) == []
    assert cuts_of([noisy] * 5 + [lit] + [first] * 5) == []
    assert cuts_of([noisy] * 5 + [lit] + [A] * 5) == [6]


def test_flashes_in_a_row_and_a_strobe():
    for light in (WHITE, BLACK, BRIGHT, DARK, B):
        assert cuts_of([A] * 5 + [light, A, A, light] + [A] * 5) == []
        assert cuts_of([A] * 5 + [light, A, light] + [A] * 5, fps=1.0) == []
        assert cuts_of([A] * 5 + [light, light, A, A] * 10 + [A] * 5) == []


def test_a_flash_at_a_cut_hides_it_not():
    assert cuts_of([A] * 5 + [WHITE] + [B] * 5) == [6]
    assert cuts_of([A] * 5 + [BRIGHT] + [B] * 5) == [6]
    assert len(cuts_of([A] * 5 + [np.clip(B * 1.8 + 50.0, 0, 255).astype(np.uint8)] + [B] * 5)) == 1


def test_only_what_is_undone_at_once_is_a_glitch():
    times = np.arange(8) / 10
    assert without_glitches(times, [0, 1, 0, -1, 0, 1, 0, 0]) == [0, 0, 0, 0, 0, 1, 0, 0]
    assert without_glitches(times, [0, 1, 1, 0, -2, 0, 0, 0]) == [0] * 8
    assert without_glitches(times, [1, 0, 0, 0, 0, 0, -1, 0]) == [1, 0, 0, 0, 0, 0, -1, 0]
    assert without_glitches(times * 100, [0, 1, -1, 0, 0, 0, 0, 0]) == [0] * 8
    assert without_glitches(times, [-1, 0, 0, 0, 0, 0, 0, 0]) == [-1, 0, 0, 0, 0, 0, 0, 0]


def test_a_picture_that_changes_slowly_is_one_shot():
    """A cross-fade: each frame is compared with the one before it, not with the first of the shot."""
    share = np.linspace(0, 1, 21)[:, None, None, None]
    assert not any(CutFinder()((A * (1 - share) + B * share).astype(np.uint8)))
