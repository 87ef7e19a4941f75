from __future__ import annotations

from xml.etree import ElementTree

from training.charts import HEIGHT, WIDTH, Axis, Line, as_steps, draw_chart

X, Y = Axis("across", (0.0, 1.0, 2.0)), Axis("up", (0.0, 0.5, 1.0))


def draw(*lines: Line, ideal=()) -> ElementTree.Element:
    return ElementTree.fromstring(draw_chart(lines, X, Y, ideal=ideal))


def test_a_line_runs_from_corner_to_corner_inside_the_picture():
    chart = draw(Line("found", [(0.0, 0.0), (2.0, 1.0)]))

    (line,) = chart.iter("polyline")
    (left, bottom), (right, top) = (
        tuple(map(float, corner.split(","))) for corner in line.get("points").split()
    )
    assert 0 < left < right < WIDTH
    assert 0 < top < bottom < HEIGHT


def test_what_lies_beyond_an_axis_stays_at_its_end():
    inside, beyond = (draw(Line("a", [(0.0, 0.0), (x, 1.0)])) for x in (2.0, 9.0))

    assert next(inside.iter("polyline")).attrib == next(beyond.iter("polyline")).attrib


def test_axes_lines_and_what_is_ideal_are_told_apart():
    chart = draw(Line("<a>", [(0, 0)]), Line("b", [(0, 0)]), ideal=[(0, 0), (2, 1)])

    texts = [text.text for text in chart.iter("text")]
    kinds = [line.get("class") for line in chart.iter("polyline")]
    assert {"0", "1", "2", "0.5", "across", "<a>", "b"} == set(texts)
    assert kinds == ["ideal", "line l0", "line l1"]


def test_a_heavier_point_is_a_larger_dot():
    light, heavy = draw(Line("a", [(0, 0), (1, 1)], [0.1, 0.9])).iter("circle")

    assert float(light.get("r")) < float(heavy.get("r"))


def test_steps_keep_each_height_until_the_next_point():
    assert as_steps([(0, 0), (1, 0.5), (2, 1)]) == [(0, 0), (1, 0), (1, 0.5), (2, 0.5), (2, 1)]
    assert as_steps([]) == []
