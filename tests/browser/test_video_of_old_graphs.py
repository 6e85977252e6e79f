"""New graphs have 25 frames a second; those that were saved before that was offered keep what they had."""

import pytest

KIND = "DiceTalkVideo"


@pytest.mark.parametrize(
    "saved, smooth", [([12.5, 8, 4], False), ([12.5, 8, 4, True], True), ([12.5, 8, 4, False], False)]
)
def test_a_saved_graph_keeps_its_frame_rate(frontend, saved, smooth):
    frontend.load({"nodes": [], "links": [], "groups": [], "version": 0.4})
    frontend.page.evaluate("(kind) => void app.graph.add(LiteGraph.createNode(kind))", KIND)
    assert frontend.values(KIND)["smooth_motion"] is True, "a new node"
    graph = frontend.serialized()
    graph["nodes"][0]["widgets_values"] = saved
    frontend.load(graph)
    frontend.wait_values(KIND, fps=12.5, chunk_size=8, context=4, smooth_motion=smooth)
