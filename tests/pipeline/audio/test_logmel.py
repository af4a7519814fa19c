import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avfuse.features_store.clock import patch_start_frames
from avfuse.pipeline.audio.framing import lie_on, rows_on_grid, windows
from avfuse.pipeline.audio.logmel import PATCH_SAMPLES, log_mel, patch_valid, patches

RATE_HZ = 16_000
ALIGNS = ("start", "center", "end")


def noise(count: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(count) * 0.1).astype(np.float32)


def cut(samples: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    edges = np.cumsum([0, *sizes])
    blocks = [samples[begin:end] for begin, end in zip(edges, [*edges[1:], None], strict=True)]
    return [block.copy() for block in blocks]


def rows(blocks, time_s, align="start", batch_rows=32) -> np.ndarray:
    batches = [np.asarray(batch) for batch in patches(blocks, time_s, align, batch_rows)]
    assert all(len(batch) == batch_rows for batch in batches[:-1])
    return np.concatenate([np.zeros((0, 96, 64), np.float32), *batches])


@pytest.mark.parametrize("align", ALIGNS)
def test_each_row_is_the_log_mel_of_its_own_samples(align):
    samples, time_s = noise(5 * RATE_HZ), np.arange(0, 5, 1001 / 30_000)
    whole = np.concatenate([np.zeros(RATE_HZ), samples, np.full(RATE_HZ, samples[-1])]).astype(np.float32)
    made = rows([samples], time_s, align)
    assert made.dtype == np.float32
    assert len(made) == len(time_s)
    for row, start in enumerate(patch_start_frames(time_s, align)):
        own = whole[RATE_HZ + start * 160 :][:PATCH_SAMPLES]
        frames = np.stack([own[at : at + 400] for at in range(0, 15_201, 160)])
        np.testing.assert_allclose(made[row], log_mel(frames), atol=1e-6)


@given(
    st.lists(st.integers(0, 30_000), max_size=6), st.sampled_from(ALIGNS), st.integers(1, 50), st.integers(1, 60_000)
)
def test_blocks_and_batches_do_not_change_a_bit(sizes, align, batch_rows, count):
    samples, time_s = noise(count), np.arange(0, 4, 1 / 23.976)
    np.testing.assert_array_equal(rows(cut(samples, sizes), time_s, align, batch_rows), rows([samples], time_s, align))


def test_rows_whose_patch_ends_more_than_a_second_after_the_sound_are_not_delivered():
    samples, time_s = noise(2 * RATE_HZ), np.arange(0, 5, 0.01)
    # The last patch ends within the second: 160 start + 15600 <= 32000 + 16000
    assert len(rows([samples], time_s)) == (48_000 - 15_600) // 160 + 1
    assert len(rows([samples], time_s, "end")) == (48_000 - 15_600) // 160 + 1 + 96


@pytest.mark.parametrize("align", ALIGNS)
def test_no_sound_gives_no_rows_and_one_sample_gives_some(align):
    time_s = np.arange(0, 1, 0.04)
    assert len(rows([], time_s, align)) == 0
    assert len(rows([np.zeros(0, np.float32)], time_s, align)) == 0
    assert len(rows([noise(1)], time_s, align)) >= 1
    assert len(rows([noise(10)], np.zeros(0), align)) == 0


def test_silence_is_the_logarithm_of_the_offset():
    made = rows([np.zeros(RATE_HZ, np.float32)], np.zeros(1))
    np.testing.assert_allclose(made, np.log(0.01), atol=1e-6)


def test_all_blocks_are_read_even_when_no_row_wants_them():
    numbers = iter(range(50))
    assert len(rows((noise(1000) for _ in numbers), np.zeros(2))) == 2
    assert next(numbers, None) is None


@pytest.mark.parametrize("count", [1, 79, 80, 399, 400, 401, 560, 16_000, 16_400, 32_240])
def test_every_whole_window_up_to_a_second_after_the_sound_is_there(count):
    """The last one is whole to the sample, where pieces end too."""
    assert sum(map(len, windows([noise(count)], 0))) == (count + RATE_HZ - 400) // 160 + 1


@pytest.mark.parametrize(("batch_rows", "sizes"), [(1, [1] * 10), (4, [4, 4, 2]), (5, [5, 5]), (50, [10])])
def test_rows_come_in_batches_of_the_size_asked_for(batch_rows, sizes):
    frames = np.arange(30.0)[:, None]
    batches = list(rows_on_grid([frames[:20], frames[20:]], np.arange(0, 20, 2), 3, batch_rows))
    assert [len(firsts) for _, firsts in batches] == sizes
    assert [len(read) for read, _ in batches] == [2 * size + 1 for size in sizes]  # of each row one frame is the next's
    made = [read[first : first + 3, 0] for read, firsts in batches for first in firsts]
    np.testing.assert_array_equal(made, [[at, at + 1, at + 2] for at in range(0, 20, 2)])


def test_a_batch_is_delivered_before_more_sound_is_read():
    taken = []

    def pieces():
        for number in range(50):
            taken.append(number)
            yield np.zeros((4, 1))

    for number, (read, firsts) in enumerate(rows_on_grid(pieces(), np.arange(0, 200, 2), 1, 2), 1):
        assert (len(read), len(firsts)) == (2, 2)
        assert len(taken) == number


def test_memory_does_not_grow_with_the_length():
    """Rows a minute apart in an hour of sound: nothing is kept for the batch but its patches."""
    block = noise(10 * RATE_HZ)
    tracemalloc.start()
    made = rows((block for _ in range(60)), np.arange(0, 600, 60.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(made) == 10
    assert peak < 8e6


def test_valid_rows_lie_on_real_sound():
    time_s = np.arange(0, 4, 0.01)
    valid = patch_valid(time_s, "start", [(0.5, 2.0), (2.5, 4.0)])
    expected = ((time_s > 0.499) & (time_s + 0.975 < 2.001)) | ((time_s > 2.499) & (time_s + 0.975 < 4.001))
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(patch_valid(time_s, "end", [(0.0, 4.0)]), (time_s > 0.959) & (time_s < 3.986))
    assert not patch_valid(time_s, "center", []).any()


def test_valid_has_half_a_sample_of_slack():
    slack_s = 0.49 / RATE_HZ
    assert patch_valid(np.zeros(1), "start", [(slack_s, 0.975 - slack_s)]).all()
    assert not patch_valid(np.zeros(1), "start", [(0.0, 0.975 - 1 / RATE_HZ)]).any()
    beyond_s = 0.51 / RATE_HZ
    assert not patch_valid(np.zeros(1), "start", [(beyond_s, 2.0)]).any()
    assert not patch_valid(np.zeros(1), "start", [(0.0, 0.975 - beyond_s)]).any()


def test_a_tiny_hole_voids_no_more_than_its_share():
    """Of 975 ms 40 may be missing, in one hole or in two, and 60 may not."""
    time_s = np.arange(0, 3, 0.01)
    assert patch_valid(time_s, "start", [(0.0, 1.5), (1.54, 4.0)]).all()
    touched = (time_s < 1.56) & (time_s + 0.975 > 1.5)
    np.testing.assert_array_equal(patch_valid(time_s, "start", [(0.0, 1.5), (1.56, 4.0)]), ~touched)
    both = (time_s < 1.5) & (time_s + 0.975 > 1.74)  # 80 ms lie in the patch, less what its ends cut off
    valid = patch_valid(time_s, "start", [(0.0, 1.5), (1.54, 1.7), (1.74, 4.0)])
    assert not valid[both].any()
    assert valid[(time_s + 0.975 < 1.7) | (time_s > 1.54)].all()


@given(st.lists(st.integers(0, 150), min_size=1, max_size=20).map(sorted), st.integers(1, 8))
def test_a_batch_holds_what_its_rows_read_once_and_nothing_else(starts, batch_rows):
    """Rows at one time, rows that overlap, and gaps of which nothing is kept."""
    track = np.arange(250.0)[:, None]
    batches = list(rows_on_grid([track[:90], track[90:]], np.array(starts), 96, batch_rows))
    made = [read[first : first + 96, 0] for read, firsts in batches for first in firsts]
    np.testing.assert_array_equal(made, [np.arange(start, start + 96) for start in starts])
    for number, (read, _) in enumerate(batches):
        wanted = starts[number * batch_rows :][:batch_rows]
        assert len(read) == len({at for start in wanted for at in range(start, start + 96)})


@pytest.mark.timeout(60)
def test_a_sound_torn_into_pieces_takes_no_time():
    """A damaged file has a gap at every frame: a comparison of all pieces with all rows would take hours."""
    begins_s = np.arange(200_000) / 10
    spans = [(begin_s, begin_s + 0.09) for begin_s in begins_s.tolist()]
    starts = np.arange(0, 20_000 * 16_000, 800)
    valid = lie_on(spans, starts, 160)
    np.testing.assert_array_equal(valid, starts % 1600 + 160 <= 1440)
    assert not lie_on([], starts, 160).any()
