"""What an annotation or a probe says of an environment goes from a recording, and nothing else of it does."""

import json
from typing import Any

import pytest

from bookinfo_lab.sources.cluster import object_slice

from .objects import pod

SECRET = "x7-Tr0ub4dor"
CONTAINERS = [{"name": "istio-proxy", "env": [{"name": "GREETING", "value": SECRET}]}]
OVERRIDES = json.dumps({"containers": CONTAINERS})
YAML = f"""\
apiVersion: v1
kind: Pod
metadata: {{}}
value: {SECRET}
"""
GOES = {
    "what Istio's injector keeps": ("proxy.istio.io/overrides", OVERRIDES),
    "the same with nothing to tell by": ("proxy.istio.io/overrides", f'["{SECRET}"]'),
    "containers": ("x", OVERRIDES),
    "init containers with arguments": ("x", json.dumps({"initContainers": [{"args": [SECRET]}]})),
    "containers by name": ("x", json.dumps({"containers": {"web": {"args": [SECRET]}}})),
    "an environment in a list": ("x", json.dumps([1, {"deep": [{"env": [{"name": "A", "value": SECRET}]}]}])),
    "an environment as a mapping": ("x", json.dumps({"values": {"env": {"A": SECRET}}})),
    "a spec deep down": ("x", json.dumps({"patches": [{"spec": {"a": SECRET}}]})),
    "a spec that is no mapping": ("x", json.dumps({"spec": SECRET})),
    "JSON in JSON": ("x", json.dumps({"before": OVERRIDES})),
    "a string of JSON": ("x", json.dumps(OVERRIDES)),
    "JSON after blanks": ("x", f"\n  {OVERRIDES}\n"),
    "two documents": ("x", f"{OVERRIDES}\n{OVERRIDES}"),
    "the settings of a proxy": ("proxy.istio.io/config", json.dumps({"proxyMetadata": {"A": SECRET}})),
    "these in YAML": ("proxy.istio.io/config", f"concurrency: 2\nproxyMetadata:\n  A: {SECRET}\n"),
    "YAML of an object": ("x", YAML),
    "YAML with Windows' line ends": ("x", YAML.replace("\n", "\r\n")),
    "YAML of a spec": ("x", f"# as it was\nspec:\n  a: {SECRET}\n"),
    "YAML of a list": ("x", f"containers:\n- env:\n  - name: A\n    value: {SECRET}\n"),
    "YAML in its flow style": ("x", f"{{name: a, env: [{{name: A, value: {SECRET}}}]}}"),
    "YAML in JSON": ("x", json.dumps({"before": YAML})),
    "an environment in a text of YAML's": ("x", 'config: "{\\"env\\":{\\"A\\":\\"' + SECRET + '\\"}}"'),
    "another name of one": ("x", json.dumps({"extraEnv": [{"name": "A", "value": SECRET}]})),
    "another name of one in YAML": ("x", f"sidecar:\n  envVars:\n  - name: A\n    value: {SECRET}\n"),
    "what is too deep to be read": ("x", "[" * 200_000 + SECRET),
}
STAYS = {
    "names of containers": json.dumps({"initContainers": ["istio-init"], "containers": None, "revision": "default"}),
    "a list of names": json.dumps({"containers": ["istio-proxy"], "volumes": ["a"]}),
    "an environment's name": json.dumps({"env": "production", "kind": "canary"}),
    "words": "kind: of a spec: no env: here",
    "lines": "It is kind: it has\nno spec, and its\nenvironment: none\nenv-name: x\n",
    "no JSON": "{",
    "a list": '["spec", "env:"]',
    "a number": "15020",
    "nothing": "",
}


def annotated(**annotations: str) -> tuple[dict[str, str], int]:
    """What is left of a pod's annotations, and how many went."""
    item = pod("10.244.0.8")
    item["metadata"]["annotations"] = annotations
    raw, gone = object_slice.sliced(json.dumps({"items": [item]}).encode())
    left = json.loads(raw)["items"][0]["metadata"]["annotations"]
    return left, gone["annotations that hold an object or an environment"]


@pytest.mark.parametrize(("name", "value"), GOES.values(), ids=GOES)
def test_an_annotation_with_an_object_or_an_environment_goes(name: str, value: str) -> None:
    assert annotated(**{name: value, "stays": "here"}) == ({"stays": "here"}, 1)


@pytest.mark.parametrize("value", STAYS.values(), ids=STAYS)
def test_an_annotation_that_tells_no_value_stays(value: str) -> None:
    assert annotated(x=value) == ({"x": value}, 0)


def test_a_long_annotation_is_read_in_no_time() -> None:
    """As long as the API server lets all of an object's be, in the forms that a careless pattern goes over again."""
    for value in ("\n" * 262_144, " -" * 131_072, "env " * 65_536, '"' * 262_144, "[" * 900 + "]" * 900):
        assert annotated(x=value) == ({"x": value}, 0)


@pytest.mark.parametrize(
    ("place", "verb"),
    [
        *(((name,), "probe") for name in ("livenessProbe", "readinessProbe", "startupProbe")),
        *((("lifecycle", name), "hook") for name in ("postStart", "preStop")),
    ],
)
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_no_value_of_a_header_field_of_a_probe_or_hook_is_left(place: tuple[str, ...], verb: str, kind: str) -> None:
    sent = {"httpGet": {"path": "/", "httpHeaders": [{"name": "X-Who", "value": SECRET}, {"name": "X-Empty"}]}}
    probe: dict[str, Any] = {place[-1]: sent}
    container = {"name": "c", "image": "c", **({place[0]: probe} if verb == "hook" else probe)}
    plain = {"name": "d", "image": "d", "livenessProbe": {"tcpSocket": {"port": 1}}, "lifecycle": {"preStop": None}}
    item = pod("10.244.0.8", **{kind: [container, plain]})
    raw, gone = object_slice.sliced(json.dumps({"items": [item]}).encode())
    assert SECRET.encode() not in raw
    made = json.loads(raw)["items"][0]["spec"][kind]
    found = made[0]
    for name in place:
        found = found[name]
    assert found["httpGet"] == {"path": "/", "httpHeaders": [{"name": "X-Who"}, {"name": "X-Empty"}]}
    assert made[1] == plain
    assert gone["header values of probes"] == 1
