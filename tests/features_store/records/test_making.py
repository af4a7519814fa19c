"""In what trials differ: counted over many, told apart of two."""

from avfuse.features_store.records.making import differing_settings, unlike

ONE = {"settings": {"face": "left", "features": ["a", "b"], "stream": None}, "weights": {"v": {"untrained_seed": 0}}}
OTHER = {"settings": {"face": "left", "features": ["a"], "stream": 1}, "weights": {"v": {"sha256": "ab" * 32}}}


def test_of_many_the_values_are_counted():
    assert differing_settings([ONE, ONE]) == []
    assert differing_settings([OTHER, ONE, ONE, {}]) == [
        "face: left (3) / not recorded (1)",
        "features: a, b (2) / a (1) / not recorded (1)",
        "stream: default (2) / 1 (1) / not recorded (1)",
        "weights of v: untrained 0 (2) / abababababababab (1) / not recorded (1)",
    ]
    assert differing_settings([{**ONE, "algorithm": 1}, {**ONE, "algorithm": 2}]) == ["algorithm: 1 (1) / 2 (1)"]


def test_of_two_both_values_are_told():
    assert unlike(ONE, ONE, "here", "there") == ""
    assert unlike(ONE, OTHER, "here", "there") == (
        "features: a, b here, a there, stream: default here, 1 there, "
        "weights of v: untrained 0 here, abababababababab there"
    )
    many = {"settings": {str(number): number for number in range(9)}}
    assert unlike(many, {}, "here", "there").endswith(", 5: 5 here, not recorded there and 3 more")
