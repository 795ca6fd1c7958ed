"""A host is the API server's in whatever case its name is quoted."""

import pytest

from bookinfo_lab.sources.cluster import text_slice
from bookinfo_lab.sources.cluster.scope import Scope, scope

from .objects import OURS, host, pod

NAME = "ab12cd.gr7.eu-west-1.eks.amazonaws.com"  # as urlsplit gives it


@pytest.fixture
def ours() -> Scope:
    return scope([OURS], [host(), pod("10.244.0.8")], [(NAME, 443), ("2001:db8::5", 6443)])


@pytest.mark.parametrize("named", [NAME, NAME.upper(), NAME.replace("ab12cd", "AB12CD"), NAME.title()])
@pytest.mark.parametrize("text", ["https://{}/api: EOF", "dial tcp {}:443", "host='{}', port=443", "{}.", "to {}"])
def test_its_name_is_overwritten_in_any_case(ours: Scope, named: str, text: str) -> None:
    made, gone = text_slice.masked(text.format(named), ours)
    assert len(made) == len(text.format(named))
    assert not any(part in made.lower() for part in ("ab12cd", "eks", "amazonaws"))
    assert gone["names of the API server"] == 1


@pytest.mark.parametrize("text", ["[2001:DB8::5]:6443", "2001:DB8::5"])
def test_its_address_is_overwritten_in_any_case(ours: Scope, text: str) -> None:
    assert text_slice.masked(text, ours)[0] == "x" * len(text)


@pytest.mark.parametrize("text", [f"my-{NAME}", f"my.{NAME.upper()}", f"{NAME}-2", "EKS.AMAZONAWS.COM", "2001:DB8::5F"])
def test_what_only_contains_its_name_stays(ours: Scope, text: str) -> None:
    assert text_slice.masked(text, ours)[0] == text
