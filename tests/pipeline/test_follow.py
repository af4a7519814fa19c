"""Following one face: a second person, a lost face, a cut."""

import numpy as np
import pytest

from avfuse.pipeline.cuts import CutFinder
from avfuse.pipeline.follow import Followers, overlaps, select
from avfuse.pipeline.found import NO_FACES, Faces

SIZE_PX = (640, 360)


def faces(*rows, scores=None):
    """Faces from (x1, y1, side) triples."""
    boxes = np.array([[x, y, x + side, y + side] for x, y, side in rows], np.float32).reshape(-1, 4)
    given = np.ones(len(rows)) if scores is None else np.array(scores)
    return Faces(boxes, np.zeros((len(rows), 5, 2), np.float32), given.astype(np.float32))


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
    found = faces(*rows, scores=scores) if rows else NO_FACES
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
    assert followers(NO_FACES, 0.0, False) == [None]
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


def test_cuts_are_found_within_and_between_batches():
    rng = np.random.default_rng(0)
    shots = [np.repeat(rng.integers(0, 255, (1, 72, 96, 3), dtype=np.uint8), 5, axis=0) for _ in range(3)]
    find = CutFinder()
    first = find(np.concatenate(shots[:2]))
    assert [row for row, cut in enumerate(first) if cut] == [5]
    assert find(shots[2])[0]
    assert not any(find(shots[2]))
