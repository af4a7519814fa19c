"""Following one face: a second person, a lost face, a cut."""

import numpy as np
import pytest

from avfuse.pipeline.faces.detections import NO_DETECTIONS, Detections, overlaps
from avfuse.pipeline.faces.tracking import START_SCORE, STEADY, Followers, Tracks, affinity, select

SIZE_PX = (640, 360)


def faces(*rows, scores=None):
    """Faces from (x1, y1, side) triples."""
    boxes = np.array([[x, y, x + side, y + side] for x, y, side in rows], np.float32).reshape(-1, 4)
    given = np.ones(len(rows)) if scores is None else np.array(scores)
    return Detections(boxes, np.zeros((len(rows), 5, 2), np.float32), given.astype(np.float32))


def everyone(found):
    return np.ones(len(found), bool)


@pytest.mark.parametrize(
    ("policy", "expected"), [("largest", 1), ("central", 2), ("left", 0), ("right", 1), ("all", 0)]
)
def test_policies_choose_among_three(policy, expected):
    found = faces((50, 100, 80), (500, 100, 100), (290, 150, 60))
    assert select(found, everyone(found), policy, SIZE_PX) == expected


def test_one_person_is_on_a_side_only_in_that_half():
    found = faces((500, 100, 100))
    assert select(found, everyone(found), "left", SIZE_PX) is None
    assert select(found, everyone(found), "right", SIZE_PX) == 0


def test_background_faces_are_not_the_person_on_that_side():
    found = faces((0, 0, 20), (150, 100, 100), (400, 100, 100))
    assert select(found, everyone(found), "left", SIZE_PX) == 1


def test_a_larger_second_person_does_not_take_over():
    followers = Followers("largest", SIZE_PX)
    assert followers(faces((100, 100, 100)), 0.0, False) == [0]
    for frame in range(1, 100):
        assert followers(faces((400, 100, 150), (100 + frame, 100, 100)), frame / 25, False) == [1]


def follow(followers, seconds, start_s, *rows, scores=None):
    """The choices over a stretch of 25 frames/s in which the same faces are seen."""
    found = faces(*rows, scores=scores) if rows else NO_DETECTIONS
    return [followers(found, start_s + frame / 25, False) for frame in range(round(seconds * 25))]


def test_while_the_face_is_lost_the_other_person_is_not_taken():
    followers = Followers("largest", SIZE_PX)
    follow(followers, 2, 0, (100, 100, 100), (400, 100, 90))
    assert follow(followers, 0.5, 2, (400, 100, 90)) == [[None]] * 12
    assert followers(faces((400, 100, 90), (105, 100, 100)), 2.5, False) == [1]


def test_after_a_second_without_it_another_face_is_chosen_for_good():
    followers = Followers("largest", SIZE_PX)
    follow(followers, 2, 0, (100, 100, 100), (400, 100, 90))
    assert follow(followers, 1, 2, (400, 100, 90))[-1] == [0]
    assert follow(followers, 2, 3, (400, 100, 90), (100, 100, 100)) == [[0]] * 50


@pytest.mark.parametrize("fps", [2, 1, 0.5])
def test_one_frame_without_the_face_is_no_reason_however_few_there_are(fps):
    """A flash that burns out one of two people: who is followed stays; two frames without are 2 s at 1 frame/s."""
    both, other = faces((100, 100, 100), (400, 100, 90)), faces((400, 100, 90))
    for missing, after in ((1, [0]), (2, [1])):
        followers = Followers("largest", SIZE_PX)
        seen = [both] * 5 + [other] * missing + [both]
        chosen = [followers(each, frame / fps, False) for frame, each in enumerate(seen)]
        assert chosen[5] == [None]
        assert chosen[-1] == after


def test_a_face_that_flickers_on_a_t_shirt_is_given_up():
    """intel_asl_yes.mkv: the printed face is larger than the real one, and found in every eighth frame."""
    followers = Followers("largest", SIZE_PX)
    for frame in range(60):
        print_seen = frame % 8 == 0
        found = faces((300, 50, 50), (290, 120, 120)) if print_seen else faces((300, 50, 50))
        chosen = followers(found, frame / 30, False)
        assert chosen == ([1] if frame == 0 else [0])


def test_a_face_that_moves_out_of_its_box_is_still_followed():
    followers = Followers("largest", SIZE_PX)
    follow(followers, 2, 0, (100, 100, 60))
    assert followers(faces((140, 100, 60)), 2.0, False) == [0]


def test_someone_who_comes_later_is_chosen_when_nobody_is_followed():
    followers = Followers("largest", SIZE_PX)
    follow(followers, 2, 0)
    assert followers(faces((140, 100, 60)), 2.0, False) == [0]


def test_left_stays_empty_while_only_the_other_person_is_seen():
    followers = Followers("left", SIZE_PX)
    follow(followers, 2, 0, (100, 100, 100), (400, 100, 90))
    assert follow(followers, 3, 2, (400, 100, 90)) == [[None]] * 75
    assert followers(faces((400, 100, 90), (105, 100, 100)), 5.0, False) == [1]


def test_after_a_cut_another_face_is_chosen_at_once():
    followers = Followers("largest", SIZE_PX)
    followers(faces((100, 100, 100)), 0.0, False)
    assert followers(faces((400, 100, 90)), 0.04, True) == [0]


def test_a_doubtful_face_is_kept_but_not_begun_with():
    followers = Followers("largest", SIZE_PX)
    assert followers(faces((100, 100, 100), scores=[0.8]), 0.0, False) == [None]
    assert followers(faces((100, 100, 100)), 0.04, False) == [0]
    assert followers(faces((100, 100, 100), scores=[0.75]), 0.08, False) == [0]


def test_all_gives_each_person_a_slot_of_their_own():
    followers = Followers("all", SIZE_PX)
    assert followers(NO_DETECTIONS, 0.0, False) == [None]
    assert follow(followers, 2, 0.04, (400, 100, 90), (100, 100, 100))[-1] == [1, 0]
    assert followers(faces((400, 100, 90)), 2.08, False) == [None, 0]
    assert followers(faces((405, 100, 90), (101, 100, 100)), 2.12, False) == [1, 0]


def test_all_opens_no_slot_for_a_face_found_once():
    followers = Followers("all", SIZE_PX)
    follow(followers, 1, 0, (400, 100, 90))
    assert followers(faces((400, 100, 90), (100, 100, 100)), 1.0, False) == [0]
    assert follow(followers, 1, 1.04, (400, 100, 90))[-1] == [0]


def test_all_is_bounded():
    followers = Followers("all", SIZE_PX)
    crowd = faces(*((60 * column, 0, 40) for column in range(10)))
    assert len(followers(crowd, 0.0, False)) == 8


def test_overlap_is_intersection_over_union():
    box = np.array([0, 0, 10, 10], np.float32)
    assert overlaps(box, np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], np.float32)) == pytest.approx(
        [1, 1 / 3, 0]
    )


def lost_for(frames, fps=25.0):
    """Whether another person is chosen when the followed one is not seen in so many frames."""
    followers = Followers("largest", SIZE_PX)
    follow(followers, 10, 0, (100, 100, 100), (400, 100, 90))
    return [followers(faces((400, 100, 90)), 10 + n / fps, False) for n in range(frames)][-1] == [0]


def test_a_face_may_be_away_for_ln_2_of_a_second():
    """Blinks of the detector (a hand, a turned head) last up to half a second; after 0.7 s somebody else may come."""
    assert not lost_for(round(0.65 * 25))
    assert lost_for(round(0.75 * 25))
    tracks = Tracks()
    tracks.advance(faces((100, 100, 100)), 0.0, False)
    for frame in range(1, 25 * 20):
        tracks.advance(faces((100, 100, 100)), frame / 25, False)
    tracks.advance(NO_DETECTIONS, 20.96, False)
    assert tracks.tracks[0].presence == pytest.approx(np.exp(-1), abs=1e-3)  # one second unseen: the time constant


def test_the_share_of_a_second_that_makes_a_face_steady_is_half():
    """More often seen than not: a face found in every other frame is, one in every third is not."""
    for every, steady in ((1.8, True), (3, False)):
        tracks = Tracks()
        tracks.advance(NO_DETECTIONS, 0.0, False)
        presences = []
        for frame in range(1, 250):
            seen = frame % every < 1
            tracks.advance(faces((100, 100, 100)) if seen else NO_DETECTIONS, frame / 25, False)
            presences.append(tracks.tracks[0].presence if tracks.tracks else 0.0)
        assert (np.mean(presences[100:]) >= STEADY) == steady
    assert STEADY == 0.5


def test_who_is_not_looked_for_does_not_fade():
    """Between two searches of the whole frame only the followed one is looked for."""
    tracks = Tracks()
    for frame in range(50):
        tracks.advance(faces((100, 100, 100), (400, 100, 90)), frame / 25, False)
    followed, other = tracks.tracks
    before = other.presence
    for frame in range(50, 75):
        tracks.advance(faces((100, 100, 100)), frame / 25, False, [followed])
    assert other.presence == before
    tracks.advance(faces((100, 100, 100)), 3.0, False)
    assert other.presence == pytest.approx(before * np.exp(-1.04), rel=0.01)  # the whole time since it was looked for


def test_a_face_to_begin_with_is_one_that_the_detector_is_sure_of():
    """Above MTCNN's own threshold of 0.7, which is enough for a face that is followed already."""
    for score, chosen in ((START_SCORE - 0.01, [None]), (START_SCORE + 0.01, [0])):
        assert Followers("largest", SIZE_PX)(faces((100, 100, 100), scores=[score]), 0.0, False) == chosen
    assert START_SCORE == 0.9


def test_a_face_unseen_for_three_seconds_is_another_one_when_it_comes_back():
    """Long enough to bend down for something; whoever is there later may be somebody else."""
    for away_s, same in ((2.9, True), (3.1, False)):
        tracks = Tracks()
        tracks.advance(faces((100, 100, 100)), 0.0, False)
        (track,) = tracks.tracks
        for at_s in np.arange(0.1, away_s - 0.05, 0.1):
            tracks.advance(NO_DETECTIONS, at_s, False)
        tracks.advance(faces((100, 100, 100)), away_s, False)
        assert (tracks.tracks == [track]) == same


@pytest.mark.parametrize(("missed", "same"), [(2, True), (3, False)])
def test_at_1_frame_a_second_a_face_is_forgotten_after_three_frames_without_it(missed, same):
    """Three seconds are then a flash and the frame after it: too few looks to say that it has gone."""
    tracks = Tracks()
    tracks.advance(faces((100, 100, 100)), 0.0, False)
    (track,) = tracks.tracks
    for second in range(missed):
        tracks.advance(NO_DETECTIONS, 1.0 + second, False)
    tracks.advance(faces((100, 100, 100)), 1.0 + missed, False)
    assert (tracks.tracks == [track]) == same


def test_what_continues_a_face():
    """By overlap from 0.3 on: the boxes of a face that moves by half its side share 0.33. A small face
    within a large one's box (a print on a shirt) is another: 0.28.
    """
    box = np.array([100, 100, 200, 200], np.float32)

    def goes_on(x, y, width, height):
        return affinity(box, np.array([[x, y, x + width, y + height]], np.float32))[0] > 0

    assert affinity(box, np.array([[150, 100, 250, 200]], np.float32))[0] == pytest.approx(1 + 1 / 3)  # overlap counts
    assert affinity(box, np.array([[156, 100, 256, 200]], np.float32))[0] < 1  # 0.28: only its nearness does
    assert not goes_on(120, 120, 49, 49)  # 0.24, and less than half as large
    assert goes_on(120, 120, 56, 56)  # 0.31
    # Away from its box: as near as three quarters of a side, and neither twice as large nor half as large.
    assert goes_on(174, 100, 100, 100)
    assert not goes_on(176, 100, 100, 100)
    assert goes_on(160, 110, 51, 51)
    assert not goes_on(160, 110, 49, 49)


def test_a_quarter_of_the_area_is_background():
    """Half as wide, so twice as far away: somebody behind, not the second person of the talk."""
    for side, chosen in ((51, 0), (49, 1)):
        found = faces((10, 100, side), (150, 100, 100), (400, 100, 100))
        assert select(found, everyone(found), "left", SIZE_PX) == chosen


@pytest.mark.parametrize("fps", [25.0, 1.0])
def test_frames_in_which_nobody_can_be_seen_change_nothing(fps):
    """A flash, a dark second: the smaller face was followed, and it is afterwards."""
    followers = Followers("largest", SIZE_PX)
    followers(faces((100, 100, 90)), 0.0, False)
    both = faces((100, 100, 90), (400, 100, 100))
    now = [n / fps for n in range(1, 60)]
    assert all(followers(both, at_s, False) == [0] for at_s in now[:20])
    for at_s in now[20 : 22 if fps == 1 else 45]:
        assert followers(NO_DETECTIONS, at_s, False) == [None]
    assert all(followers(both, at_s, False) == [0] for at_s in now[22 if fps == 1 else 45 :])


def test_presence_of_others_is_kept_where_only_the_followed_is_looked_for():
    followers = Followers("largest", SIZE_PX)
    follow(followers, 2, 0, (100, 100, 100), (400, 100, 90))
    before = [track.presence for track in followers._tracks.tracks][1]
    for frame in range(50, 75):
        assert followers(faces((100, 100, 100)), frame / 25, False, whole=False) == [0]
    assert [track.presence for track in followers._tracks.tracks][1] == before
