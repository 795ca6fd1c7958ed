"""What istio-init is told, read as settings; the rules that they make are those that real ones wrote."""

import json
from pathlib import Path
from typing import Any

import pytest

from bookinfo_lab.errors import LabError, Unsupported
from bookinfo_lab.netfilter import istio_init, istio_iptables, ruleset
from bookinfo_lab.netfilter.comparable import comparable
from bookinfo_lab.netfilter.istio_settings import Settings

RECORDED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).resolve().parent.parent / "data" / "istio" / "istio-init.json").read_text()
)
RESOLVERS = ("10.96.0.10",)
USUAL = ("istio-iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "")
USUAL += ("-b", "*", "-d", "15090,15021,15020", "--log_output_level=default:info")


def settings_of(name: str) -> Settings:
    told = RECORDED[name]
    return istio_init.settings(told["args"], told["env"], RESOLVERS)


def saved(name: str) -> str:
    return "".join(f"{line}\n" for line in RECORDED[name]["rules"])


@pytest.mark.parametrize("name", RECORDED)
def test_the_rules_are_those_that_istio_init_wrote(name: str) -> None:
    assert comparable(istio_iptables.rules(settings_of(name))) == comparable(saved(name))


@pytest.mark.parametrize("name", sorted(set(RECORDED) - {"plain", "hold"}))
def test_what_istio_init_is_told_otherwise_is_a_difference(name: str) -> None:
    assert comparable(istio_iptables.rules(settings_of("plain"))) != comparable(saved(name))


@pytest.mark.parametrize("name", RECORDED)
def test_every_rule_that_istio_init_writes_is_modelled(name: str) -> None:
    assert ruleset.parse(saved(name)).unmodelled() == ()


def test_the_injector_s_usual_words_are_the_default_settings() -> None:
    assert istio_init.settings(USUAL) == Settings()


@pytest.mark.parametrize(
    "words",
    [
        ("-b", "80,90"),
        ("-b=80,90",),
        ("-b80,90",),
        ("--istio-inbound-ports", "80,90"),
        ("--istio-inbound-ports=80,90",),
    ],
    ids=" ".join,
)
def test_an_option_may_be_written_in_each_of_its_forms(words: tuple[str, ...]) -> None:
    assert istio_init.settings(words).inbound_include == (80, 90)


def test_an_option_goes_before_its_variable() -> None:
    told = {"ISTIO_INBOUND_PORTS": "1", "INBOUND_TUNNEL_PORT": "15018"}
    found = istio_init.settings(("-b", "2"), told)
    assert (found.inbound_include, found.tunnel_port) == ((2,), 15018)


def test_nothing_told_intercepts_nothing() -> None:
    found = istio_init.settings(())
    assert (found.inbound_include, found.outbound_cidrs_include) == ((), ())


def test_the_proxy_s_gid_is_its_uid_unless_another_is_told() -> None:
    assert (istio_init.settings(("-u", "7")).proxy_gid, istio_init.settings(("-u", "7", "-g", "8")).proxy_gid) == (7, 8)


def test_ranges_and_resolvers_of_ipv6_are_for_other_rules() -> None:
    told = {"ISTIO_META_DNS_CAPTURE": "true"}
    found = istio_init.settings(("-i", "fd00::/8,10.0.0.0/8"), told, ("fd00::10", "10.96.0.10"))
    assert (found.outbound_cidrs_include, found.dns_servers) == (("10.0.0.0/8",), ("10.96.0.10",))


def test_resolvers_count_only_where_dns_is_captured() -> None:
    assert istio_init.settings(USUAL, {}, RESOLVERS).dns_servers == ()


def test_no_group_included_is_nobody_intercepted() -> None:
    written = istio_iptables.rules(istio_init.settings(USUAL, {"ISTIO_OUTBOUND_OWNER_GROUPS": ""}))
    assert "-A ISTIO_OUTPUT -j RETURN\n" in written


def test_tproxy_with_no_inbound_port_has_no_jump_to_its_chains() -> None:
    words = [*USUAL, "-m", "TPROXY", "-b", ""]
    written = istio_iptables.rules(istio_init.settings(words))
    assert "-j ISTIO_INBOUND" not in written
    assert "ISTIO_TPROXY" not in written


def test_a_pod_s_istio_init_is_found_among_its_init_containers() -> None:
    own = {"name": "istio-init", "args": [*USUAL, "-o", "3306"], "env": [{"name": "INVALID_DROP", "value": "true"}]}
    pod = {"spec": {"initContainers": [{"name": "first"}, own], "containers": []}}
    found = istio_init.of_pod(pod)
    assert found is not None
    assert (found.outbound_ports_exclude, found.drop_invalid) == ((3306,), True)
    assert istio_init.of_pod({"spec": {"containers": []}}) is None


@pytest.mark.parametrize("option", ["native-nftables", "skip-rule-apply", "cleanup-only", "dry-run"])
def test_what_would_write_other_rules_or_none_is_refused_by_its_name(option: str) -> None:
    with pytest.raises(Unsupported, match=f"--{option}"):
        istio_init.settings([*USUAL, f"--{option}"])
    assert istio_init.settings([*USUAL, f"--{option}=false"]) == Settings()


@pytest.mark.parametrize(
    ("words", "told", "said"),
    [
        (("-b", "80,x"), {}, "'x' is no number for istio-inbound-ports"),
        (("-b", "0"), {}, "0 is not a port"),
        (("-i", "10.0.0.0/40"), {}, "give an IPv4 range"),
        (("-x", "*"), {}, "every range is excluded"),
        (("-u",), {}, "the option -u has no value"),
        ((), {"ISTIO_OUTBOUND_OWNER_GROUPS": "staff"}, "'staff' is no number for owner groups"),
    ],
)
def test_a_wrong_value_is_refused(words: tuple[str, ...], told: dict[str, str], said: str) -> None:
    with pytest.raises(LabError, match=said):
        istio_init.settings(words, told)


@pytest.mark.parametrize(
    "more", [{"mode": "TPROXY"}, {"dns_servers": "*"}, {"outbound_groups_exclude": (1000,)}], ids=str
)
def test_what_needs_the_owner_match_cannot_be_written_with_a_mark(more: dict[str, Any]) -> None:
    with pytest.raises(LabError, match="need the owner match"):
        Settings(owner="mark", **more)
