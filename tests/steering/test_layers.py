"""Layer specifications against plain loops over the numbers that they name."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irm_lite.core.errors import LayerError
from irm_lite.steering.layers import format_layers, needs_depth, parse_layers

quick = settings(deadline=None, max_examples=60)

layer_sets = st.sets(st.integers(0, 120), min_size=1)


@pytest.mark.parametrize(
    ("spec", "n_layers", "expected"),
    [
        ("all", 4, (0, 1, 2, 3)),
        ("odd", 5, (1, 3)),
        ("even", 5, (0, 2, 4)),
        ("0-29", 30, tuple(range(30))),
        ("0,3,7-12", 30, (0, 3, 7, 8, 9, 10, 11, 12)),
        ("5", 6, (5,)),
        ("7-7", 8, (7,)),
        ("3,1,2,1-3", 4, (1, 2, 3)),
        (" 1 - 2 , 0 ", 3, (0, 1, 2)),
        (" ODD ", 4, (1, 3)),
        ("007", 8, (7,)),
        ("1/4", 32, tuple(range(8))),
        ("3/4", 32, tuple(range(16, 24))),
        (" 4/4 ", 30, tuple(range(22, 30))),
        ("1/1", 3, (0, 1, 2)),
        ("every 4", 32, (3, 7, 11, 15, 19, 23, 27, 31)),
        ("Every  3", 8, (2, 5)),
        ("every 1", 3, (0, 1, 2)),
    ],
)
def test_a_specification_names_these_layers(spec: str, n_layers: int, expected: tuple[int, ...]) -> None:
    assert parse_layers(spec, n_layers) == expected


@pytest.mark.parametrize(("spec", "expected"), [("all", (1, 2, 3, 4)), ("even", (2, 4)), ("odd", (1, 3)), ("1-2", (1, 2))])
def test_layers_below_the_first_are_left_out_of_words(spec: str, expected: tuple[int, ...]) -> None:
    assert parse_layers(spec, 5, first=1) == expected


@pytest.mark.parametrize(
    ("spec", "fragment"),
    [
        ("", "write layers as 0-29, 0,3,7-12, odd, even, all, 2/4"),
        ("1,,2", "'' is not a layer or a range"),
        ("1,", "'' is not a layer or a range"),
        ("-3", "'-3' is not a layer or a range"),
        ("1-", "'1-' is not a layer or a range"),
        ("1-2-3", "'1-2-3' is not a layer or a range"),
        ("1.5", "'1.5' is not a layer or a range"),
        ("first", "'first' is not a layer or a range"),
        ("odd,2", "'odd' is not a layer or a range"),
        ("1;2", "'1;2' is not a layer or a range"),
        ("\u0663", "is not a layer or a range"),  # a digit, but not one that anything else here reads
        ("9999999", "is not a layer or a range"),
        ("7-3", "write 3-7"),
        ("0/4", "no part 0 of 4: write 1/4, 2/4, 3/4 or 4/4"),
        ("5/4", "no part 5 of 4"),
        ("1/0", "no part 1 of 0"),
        ("1/16", "names no layer here"),
        ("1/4,3/4", "'1/4' is not a layer or a range"),
        ("1/2/3", "'1/2/3' is not a layer or a range"),
        ("every 0", "write every 2, every 4"),
        ("every 9", "names no layer here"),
        ("every", "'every' is not a layer or a range"),
        ("8", "its layers are 0-7"),
        ("0-8", "its layers are 0-7"),
        ("999999", "its layers are 0-7"),
    ],
)
def test_a_bad_specification_is_refused_with_the_fix(spec: str, fragment: str) -> None:
    with pytest.raises(LayerError) as caught:
        parse_layers(spec, 8)
    assert caught.value.exit_code == 2
    assert fragment in str(caught.value)


def test_a_layer_below_the_first_is_refused_with_the_range() -> None:
    with pytest.raises(LayerError, match="its layers are 1-7"):
        parse_layers("0-3", 8, first=1)


@pytest.mark.parametrize(("spec", "n_layers", "first"), [("odd", 1, 0), ("all", 1, 1), ("even", 2, 1)])
def test_a_word_that_names_no_layer_is_refused(spec: str, n_layers: int, first: int) -> None:
    with pytest.raises(LayerError):
        parse_layers(spec, n_layers, first)


@quick
@given(st.integers(1, 100), st.integers(1, 12))
def test_parts_share_the_layers_out_evenly_and_in_order(n_layers: int, parts: int) -> None:
    shares = []
    for part in range(1, parts + 1):
        try:
            shares.append(parse_layers(f"{part}/{parts}", n_layers))
        except LayerError:
            assert n_layers < parts
            shares.append(())
    assert [layer for share in shares for layer in share] == list(range(n_layers))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("spec", "depends"), [("all", True), ("ODD", True), (" 2/4", True), ("every 4", True), ("0-3", False), ("x", False)]
)
def test_what_depends_on_the_depth_is_told_from_numbers(spec: str, depends: bool) -> None:
    assert needs_depth(spec) is depends


@quick
@given(layer_sets)
def test_parsing_what_was_formatted_gives_the_layers_back(layers: set[int]) -> None:
    assert parse_layers(format_layers(layers), 121) == tuple(sorted(layers))


@quick
@given(layer_sets)
def test_the_formatted_text_has_one_part_for_each_run_of_neighbours(layers: set[int]) -> None:
    starts = [layer for layer in layers if layer - 1 not in layers]
    assert format_layers(layers).count(",") == len(starts) - 1


@pytest.mark.parametrize(
    ("layers", "expected"), [((0, 1, 2, 5), "0-2,5"), ((5, 2, 1, 0, 5), "0-2,5"), ((3, 4), "3-4"), ((9,), "9"), ((), "")]
)
def test_layers_are_formatted_as_a_person_would_write_them(layers: tuple[int, ...], expected: str) -> None:
    assert format_layers(layers) == expected


@quick
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted), min_size=1, max_size=6))
def test_overlapping_ranges_name_each_layer_once_in_order(ranges: list[list[int]]) -> None:
    named = [layer for layer in range(41) if any(low <= layer <= high for low, high in ranges)]
    assert list(parse_layers(",".join(f"{low}-{high}" for low, high in ranges), 41)) == named


@quick
@given(st.one_of(st.text(max_size=12), st.text("0123456789,-/ oadevry", max_size=12)), st.integers(2, 40))
def test_any_text_gives_layers_of_the_model_or_a_layer_error(spec: str, n_layers: int) -> None:
    try:
        layers = parse_layers(spec, n_layers)
    except LayerError:
        return
    assert layers
    assert set(layers) <= set(range(n_layers))
