"""The three forms of users: what the proxies' user is, and what Istio's rules match, in a mesh that answers."""

import subprocess
from collections.abc import Iterator

import pytest
from modes import MODES, Runner, runner

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module", params=MODES)
def lab(request: pytest.FixtureRequest) -> Iterator[Runner]:
    with runner(request.param) as made:
        done = made.run("up", "--name", "users")
        assert done.returncode == 0, done.stderr
        assert f"users mapped: {request.param}" in done.stdout
        yield made
        made.run("down", "--name", "users")


def inside(lab: Runner, *words: str) -> str:
    done = lab.run("exec", "--name", "users", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_proxy_runs_as_1337_wherever_that_user_exists(lab: Runner) -> None:
    expected = "0" if lab.mode == "single" else "1337"
    place = ("-c", "istio-proxy", "productpage", "--")
    assert inside(lab, *place, "id", "-u").strip() == expected
    owners = inside(lab, *place, "ps", "-eo", "uid,comm").split("\n")
    assert [line.split()[0] for line in owners if line.endswith(("envoy", "pilot-agent"))] == [expected, expected]


def test_istios_rules_match_the_uid_or_else_the_mark(lab: Runner) -> None:
    rules = inside(lab, "--uid", "0", "productpage", "--", "iptables-nft-save", "-t", "nat")
    assert ("--uid-owner 1337" in rules) == (lab.mode != "single")
    assert ("--mark 0x539" in rules) == (lab.mode == "single")


def test_a_request_passes_both_proxies_of_every_hop(lab: Runner) -> None:
    for _ in range(3):
        done = lab.run("journey", "--name", "users")
        assert done.returncode == 0, done.stderr
        assert "GET /details/0" in done.stdout
        assert "no proxy" not in done.stdout
        assert "lack their other half" not in done.stdout


def test_a_service_that_is_applied_later_is_known_to_the_pods(lab: Runner) -> None:
    """Writes into containers of another user: their files must be reachable for the sandbox's init."""
    code = (
        "from bookinfo_lab import sandbox; from bookinfo_lab.sandbox import topology;"
        "mesh = sandbox.attach('users'); port = {'name': 'http', 'port': 9080, 'targetPort': 9080};"
        "mesh.apply([topology.service('later', 'default', '10.96.99.99', [port], selector={'app': 'details'})]);"
        "print(mesh.run('productpage', ['python', '-c', "
        "'import urllib.request as u; print(u.urlopen(\"http://later:9080/health\", timeout=5).status)']))"
    )
    argv = lab.command()
    argv[argv.index("-c", argv.index("-P")) + 1 :] = [code]
    done = subprocess.run(argv, env=lab.env, capture_output=True, text=True, check=False, timeout=60, cwd="/")
    assert "200" in done.stdout, done.stdout + done.stderr
