"""The summary of a run by two independent counts, and the comparison with a ground truth."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import detections, frame

from derma_cli.summary import Flow, add_flows, summarise
from derma_cli.truth import compare
from derma_common.errors import SourceError
from derma_common.inference.card import read_card
from derma_common.store import StoreReader
from derma_sink.join import Joins
from derma_sink.outcome import closed, delivered
from derma_sink.store import StoreWriter


@pytest.fixture
def stored(tmp_path, detector_dir, classifier_dir):
    """`stored({seq: boxes or a reason})` writes a run of one camera and opens it for reading."""
    opened = []

    def store(outcomes, cameras=("cam0",), origins=None, frames=()):
        path = tmp_path / "derma.db"
        writer = StoreWriter(path, "run1")
        writer.begin_run(
            1, "b", "0", [(c, "a.mp4", False) for c in cameras], read_card(detector_dir), read_card(classifier_dir)
        )
        names = origins or {}
        writer.commit([_outcome(seq, what, names.get(seq, "")) for seq, what in outcomes.items()], [])
        for camera, seq, captured_ns, wall_ns in frames:
            of, joins = frame(seq, camera=camera, captured_ns=captured_ns, wall_ns=wall_ns), Joins()
            writer.commit([delivered(joins.add(detections(of, 0), 1))], [])
        writer.close()
        opened.append(StoreReader(path))
        return opened[-1]

    yield store
    for reader in opened:
        reader.close()


def _outcome(seq, what, origin=""):
    if isinstance(what, str):
        return closed("cam0", seq, what, origin, None, 1)
    of, joins = frame(seq), Joins()
    found = detections(of, len(what))
    joins.add(type(found)(of, tuple(what), found.scores, found.model, 1, 2), 1)
    join = joins.pop(("cam0", seq))
    return delivered(join) if not what else closed("cam0", seq, "deadline", "", join, 1)


REPORTS = st.fixed_dictionaries(
    {},
    optional={
        "captured": st.integers(0, 99), "delivered": st.integers(0, 99), "in_flight": st.integers(0, 9),
        "dropped": st.dictionaries(st.sampled_from(("busy", "poison")), st.integers(0, 9)),
    },
)  # fmt: skip


@given(st.lists(REPORTS, max_size=4))
def test_the_flow_of_all_cameras_is_their_sum(reports):
    flow = add_flows(reports)
    assert flow.captured == sum(r.get("captured", 0) for r in reports)
    assert flow.delivered == sum(r.get("delivered", 0) for r in reports)
    assert flow.in_flight == sum(r.get("in_flight", 0) for r in reports)
    assert sum(flow.dropped.values()) == sum(sum(r.get("dropped", {}).values()) for r in reports)


def test_a_summary_counts_the_captures_and_the_rows_apart(stored):
    store = stored({0: [(0, 0, 9, 9)], 1: [], 2: "busy", 3: "poison"})
    summary = summarise("run1", Flow(5, 2, {"busy": 2}, 1), {"sink.0": 1}, 0, store)
    assert (summary.captured, summary.delivered, summary.dropped, summary.in_flight) == (5, 2, {"busy": 2}, 1)
    assert summary.stored == {"delivered": 2, "dropped": {"busy": 1, "poison": 1}}
    assert summary.findings == 1


def test_a_summary_is_json_and_lines_for_a_person(stored):
    summary = summarise("run1", Flow(1, 1, {}, 0), {}, 0, stored({0: []}))
    assert json.loads(json.dumps(summary.as_json()))["stored"] == {"delivered": 1, "dropped": {}}
    lines = summary.lines()
    assert lines[1] == "captured 1 = delivered 1 + dropped 0 + in flight 0"
    assert any(line.startswith("  sink service") for line in lines)


def test_a_summary_of_a_run_without_frames_can_be_shown(stored):
    summary = summarise("run1", add_flows([]), {}, 0, stored({}))
    assert summary.fps == 0
    assert "–" in "\n".join(summary.lines())


@pytest.fixture
def truth(tmp_path):
    def write(frames):
        path = tmp_path / "truth.json"
        rows = [{"seq": s, "lesions": [{"id": i, "box": b} for i, b in lesions]} for s, lesions in frames.items()]
        path.write_text(json.dumps({"frames": rows}))
        return path

    return write


NEAR = (0.0, 0.0, 10.0, 10.0)
FAR = (50.0, 50.0, 60.0, 60.0)


def test_found_boxes_are_compared_with_true_ones_frame_by_frame(stored, truth):
    store = stored({0: [NEAR, FAR], 1: [NEAR], 2: "busy", 9: [FAR]})
    frames = {0: [("a", NEAR)], 1: [("a", FAR), ("b", (1, 1, 11, 11))], 2: [("c", NEAR)]}
    agreement = compare(store, "run1", None, truth(frames))
    assert (agreement.frames, agreement.true_boxes, agreement.found_boxes, agreement.matched) == (3, 4, 3, 2)
    assert (agreement.lesions, agreement.lesions_found) == (3, 2)
    assert agreement.recall == pytest.approx(2 / 4)
    assert agreement.precision == pytest.approx(2 / 3)
    assert "recall 0.500, precision 0.667 over 4 true boxes in 3 frames; 2 of 3 lesions found" in agreement.line()
    assert json.loads(json.dumps(agreement.as_json()))["precision"] == 0.6667


def test_without_boxes_on_either_side_nothing_is_missed(stored, truth):
    agreement = compare(stored({0: []}), "run1", None, truth({0: []}))
    assert (agreement.recall, agreement.precision) == (1.0, 1.0)


def test_a_truth_of_one_recording_needs_one_camera(stored, truth):
    store = stored({0: [NEAR]}, cameras=("cam0", "cam1"))
    path = truth({0: [("a", NEAR)]})
    with pytest.raises(SourceError, match="say --camera"):
        compare(store, "run1", None, path)
    assert compare(store, "run1", "cam0", path).matched == 1
    assert compare(store, "run1", "cam1", path).matched == 0


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"frames": 5}', '{"frames": [5]}', '{"frames": [{"seq": "x", "lesions": []}]}',
     '{"frames": [{"seq": 0, "lesions": [{"id": "a", "box": [1, 2]}]}]}',
     '{"frames": [{"seq": 0, "lesions": [{"id": "a", "box": "abcd"}]}]}'],
)  # fmt: skip
def test_a_truth_that_is_none_is_one_line(stored, tmp_path, text):
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(SourceError, match="is no ground truth"):
        compare(stored({0: []}), "run1", None, tmp_path / "truth.json")


def test_a_truth_that_is_not_there_is_one_line(stored, tmp_path):
    with pytest.raises(SourceError, match="there is no ground truth"):
        compare(stored({}), "run1", None, tmp_path / "none.json")


def test_files_that_were_no_pictures_are_named_up_to_a_number(stored):
    names = {seq: f"{seq}.png" for seq in range(30)}
    store = stored(dict.fromkeys(names, "unreadable"), origins=names)
    summary = summarise("run1", Flow(30, 0, {"unreadable": 30}, 0), {}, 0, store)
    assert summary.unreadable == [f"{seq}.png" for seq in range(20)]
    assert any(line.endswith("18.png, 19.png and 10 more") for line in summary.lines())


def test_steps_of_the_wall_clock_are_told_once_however_many_cameras_saw_them(stored):
    hour_ns = 3600 * 10**9
    frames = [
        (camera, i, 1000 + i, 5000 + i - hour_ns * (i >= late))
        for camera, late in (("a", 2), ("b", 3))
        for i in range(6)
    ]
    store = stored({}, cameras=("a", "b"), frames=frames)
    summary = summarise("run1", Flow(12, 12, {}, 0), {}, 0, store)
    assert summary.clock_steps_s == [-3600.0]
    assert (
        "the wall clock was set during the run (-3600.0 s): frames before are dated by the old one" in summary.lines()
    )
