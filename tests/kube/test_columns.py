"""kubectl's columns: a real kubectl's own output is the judge, then its tables of durations, then odd objects."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube import columns

RECORDED = Path(__file__).resolve().parents[1] / "data" / "kubectl"
RESOURCES = ("pods", "services", "endpointslices", "nodes")


def cells(text: str) -> list[tuple[str, ...]]:
    """What kubectl printed, cut at the columns of its header."""
    head, *rows = text.rstrip("\n").split("\n")
    starts = [at for at in range(len(head)) if head[at] != " " and (at == 0 or head[at - 3 : at] == "   ")]
    ends = [*starts[1:], None]
    return [tuple(row[start:end].strip() for start, end in zip(starts, ends, strict=True)) for row in [head, *rows]]


@pytest.mark.parametrize("resource", RESOURCES)
@pytest.mark.parametrize("name", ["early", "late"])
def test_columns_and_cells_are_kubectls(name: str, resource: str) -> None:
    recorded = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))[resource]
    for items in (recorded["items"], columns.read(resource, json.dumps(recorded).encode())):
        sheet = columns.of(resource, items, recorded["now"])
        assert [sheet.columns, *sheet.rows] == cells(recorded["text"])


def test_the_recorded_pods_are_in_many_states() -> None:
    recorded = [json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8")) for name in ("early", "late")]
    states = {row[3] for item in recorded for row in columns.pods(item["pods"]["items"], item["pods"]["now"]).rows}
    assert {"Completed", "Error", "CrashLoopBackOff", "Init:1/2", "Init:ImagePullBackOff", "SchedulingGated"} <= states
    assert {"Pending", "Running", "ImagePullBackOff", "NotReady"} <= states


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [  # the cases of k8s.io/apimachinery/pkg/util/duration/duration_test.go
        (-2, "<invalid>"),
        (-2 + 0.000000001, "0s"),
        (0, "0s"),
        (0.999, "0s"),
        (1, "1s"),
        (119, "119s"),
        (120, "2m"),
        (129, "2m9s"),
        (600, "10m"),
        (10799, "179m"),
        (10800, "3h"),
        (8 * 3600 - 1, "7h59m"),
        (8 * 3600, "8h"),
        (48 * 3600 - 1, "47h"),
        (48 * 3600, "2d"),
        (49 * 3600, "2d1h"),
        (8 * 24 * 3600 - 1, "7d23h"),
        (8 * 24 * 3600, "8d"),
        (730 * 24 * 3600 - 1, "729d"),
        (730 * 24 * 3600, "2y"),
        (731 * 24 * 3600, "2y1d"),
        (8 * 365 * 24 * 3600, "8y"),
    ],
)
def test_durations_are_gos(seconds: float, shown: str) -> None:
    assert columns.duration(seconds) == shown


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
WORDS = """metadata spec status name namespace creationTimestamp deletionTimestamp containers initContainers
conditions containerStatuses initContainerStatuses ports clusterIPs loadBalancer ingress endpoints addresses nodeInfo
labels readinessGates state lastState terminated waiting running type selector"""
KEYS = st.sampled_from(WORDS.split())
ODD = st.recursive(
    JSON, lambda inner: st.dictionaries(KEYS, inner, max_size=5) | st.lists(inner, max_size=3), max_leaves=25
)


@pytest.mark.parametrize("resource", RESOURCES)
@given(items=st.lists(st.dictionaries(KEYS, ODD, max_size=5), max_size=3), now=st.floats(0, 4e9))
def test_objects_of_any_shape_give_a_row_each(resource: str, items: list[dict[str, Any]], now: float) -> None:
    sheet = columns.of(resource, items, now)
    assert len(sheet.rows) == len(items)
    assert all(len(row) == len(sheet.columns) and all(isinstance(cell, str) for cell in row) for row in sheet.rows)


def test_another_resource_is_refused_with_those_there_are() -> None:
    with pytest.raises(LabError, match="no columns for 'secrets'; there are: pods, services"):
        columns.of("secrets", [], 0)


@given(st.recursive(st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=3), st.lists))
def test_a_list_is_read_like_any_json_whatever_stands_in_its_fields(odd: object) -> None:
    pod: dict[str, object] = {
        "metadata": {"name": "a", "namespace": "n", "labels": {"x": "y"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "l", "containers": [{"name": "c", "env": [odd]}], "initContainers": odd},
        "status": {"phase": "Running", "containerStatuses": [{"name": "c", "ready": True, "state": odd}], "podIP": odd},
    }
    raw = json.dumps({"items": [pod, {"metadata": {"name": "b"}, "status": {"conditions": odd}}]}).encode()
    assert columns.of("pods", columns.read("pods", raw), 1.9e9) == columns.of("pods", json.loads(raw)["items"], 1.9e9)
