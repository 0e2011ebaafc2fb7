"""Choices: the default without measurements, the measured winner with them, and never what is no candidate."""

from nearfield.compiler.build import Target
from nearfield.compiler.choice import Choices

TILES = ((64, 64), (32, 32), (16, 128))


def test_the_default_is_chosen_where_nothing_was_measured() -> None:
    choices = Target("webgpu").choices
    assert choices.choose("tile", (7, 9, "float32"), TILES, (32, 32)) == (32, 32)
    assert choices.asked == {}


def test_a_winner_is_chosen_for_its_own_question_only() -> None:
    choices = Choices({"tile (7, 9)": "(16, 128)"})
    assert choices.choose("tile", (7, 9), TILES, TILES[0]) == (16, 128)
    assert choices.choose("tile", (9, 7), TILES, TILES[0]) == TILES[0]
    assert choices.choose("rows", (7, 9), TILES, TILES[0]) == TILES[0]


def test_a_winner_that_is_no_candidate_any_more_is_passed_over() -> None:
    assert Choices({"tile 8": "(8, 8)"}).choose("tile", 8, TILES, TILES[1]) == TILES[1]


def test_questions_are_noted_for_who_measures() -> None:
    """The default comes first; each candidate is named once."""
    choices = Choices(note=True)
    choices.choose("tile", 8, TILES, (32, 32))
    assert choices.asked == {"tile 8": ("(32, 32)", "(64, 64)", "(16, 128)")}
    measured = Choices({"tile 8": choices.asked["tile 8"][2]})
    assert measured.choose("tile", 8, TILES, (32, 32)) == (16, 128)
