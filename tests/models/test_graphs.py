from __future__ import annotations

from models.graphs import HeatmapLocator, PoseLocator, wrap_locator


def outcome(name, graph):
    return lambda **arrays: (name, *graph(**arrays))


def test_both_calls_of_a_heatmap_are_replaced():
    locator = HeatmapLocator(lambda: ("all",), 8, 16, peaks=lambda: ("peaks",))

    wrapped = wrap_locator(locator, outcome)

    assert wrapped.graph() == ("locator", "all")
    assert wrapped.peaks() == ("locator", "peaks")
    assert (wrapped.stride_px, wrapped.multiple_px) == (8, 16)


def test_a_heatmap_without_peaks_gets_none():
    assert wrap_locator(HeatmapLocator(lambda: (), 8, 16), outcome).peaks is None


def test_a_pose_locators_call_is_replaced():
    wrapped = wrap_locator(PoseLocator(lambda: ("points",), (64, 96)), outcome)

    assert wrapped.graph() == ("locator", "points")
    assert wrapped.look_hw == (64, 96)
