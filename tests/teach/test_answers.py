"""How answers are read: kindly where they say it in another form, without harm where they are something else."""

from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv6Address
from typing import Any

import numpy
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookinfo_lab.teach.checks import as_address, as_fraction, as_name, as_number


class Hostile:
    """Nothing may be asked of it."""

    def __repr__(self) -> str:
        raise RuntimeError("asked for its text")

    __str__ = __len__ = __iter__ = __eq__ = __bool__ = __int__ = __float__ = __index__ = __repr__  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


HOSTILE = [
    Hostile(),
    [Hostile()],
    {"a": Hostile()},
    (Hostile(), Hostile()),
    object(),
    b"12",
    b"\xff" * 4,
    True,
    [],
    {},
    (),
    "",
    "   ",
    "\x00\x1b[31m<script>",
    "1" * 1_000_000,
    "x" * 1_000_000,
    10**5000,
    -1,
    float("nan"),
    float("inf"),
    1 + 2j,
    len,
    iter("abc"),
    pandas.DataFrame({"a": [1, 2]}),
    pandas.Series([1, 2]),
    numpy.array([1, 2]),
    numpy.float64("nan"),
]


@pytest.mark.parametrize(
    "answer",
    [31380, "31380", " 31380\n", 31380.0, numpy.int64(31380), numpy.float64(31380), Fraction(62760, 2), "31_380"],
    ids=repr,
)
def test_a_whole_number_is_read_from_each_form_it_is_given_in(answer: Any) -> None:
    assert as_number(answer) == 31380
    assert type(as_number(answer)) is int


@pytest.mark.parametrize("answer", [True, False, 0.5, "0.5", "0x10", "one", None, ..., b"1", [1], "1" * 5000, 1e999])
def test_what_is_no_whole_number_is_none(answer: Any) -> None:
    assert as_number(answer) is None


@pytest.mark.parametrize("answer", [0.25, "0.25", " 0,25 ", "1/4", " 1 / 4", "25 %", "25%", Fraction(1, 4), ".25"])
def test_a_fraction_is_read_from_each_form_it_is_given_in(answer: Any) -> None:
    assert as_fraction(answer) == 0.25


@pytest.mark.parametrize(
    "answer", [True, "", "/", "1/", "1/0", "a/b", "%", "1/2/3", "nan", "1e999", float("nan"), 10**400, None, ..., [0.5]]
)
def test_what_is_no_finite_number_is_none(answer: Any) -> None:
    assert as_fraction(answer) is None


@pytest.mark.parametrize(
    "answer", ["192.0.2.7", " 192.0.2.7 ", "192.0.2.7/24", IPv4Address("192.0.2.7"), IPv4Interface("192.0.2.7/24")]
)
def test_an_address_is_read_from_each_form_it_is_given_in(answer: Any) -> None:
    assert as_address(answer) == IPv4Address("192.0.2.7")
    assert type(as_address(answer)) is IPv4Address


def test_an_address_may_be_of_version_6() -> None:
    assert as_address("2001:DB8::1/64") == IPv6Address("2001:db8::1")


@pytest.mark.parametrize(
    "answer", ["", "192.0.2", "192.0.2.7:80", "192.0.2.256", 3221225991, b"\xc0\x00\x02\x07", None]
)
def test_what_is_no_address_is_none(answer: Any) -> None:
    assert as_address(answer) is None


@pytest.mark.parametrize("answer", ["KUBE-X", " KUBE-X\t", "default/KUBE-X", "ns/default/KUBE-X"])
def test_a_name_is_read_without_blanks_and_namespace(answer: str) -> None:
    assert as_name(answer) == "KUBE-X"


@pytest.mark.parametrize("answer", ["", "  ", "a/", 5, b"name", None, ["name"]])
def test_what_is_no_name_is_none(answer: Any) -> None:
    assert as_name(answer) is None


@pytest.mark.parametrize("read", [as_number, as_fraction, as_address, as_name])
@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_nothing_that_an_answer_can_be_makes_a_reader_raise(read: Any, number: int) -> None:
    assert isinstance(read(HOSTILE[number]), int | float | str | IPv4Address | None)


@given(st.integers())
def test_a_number_s_own_text_is_the_number(number: int) -> None:
    assert as_number(str(number)) == as_number(number) == number


@given(st.ip_addresses())
def test_an_address_s_own_text_is_the_address(address: Any) -> None:
    assert as_address(str(address)) == as_address(address) == address


@given(st.one_of(st.text(), st.floats(), st.binary(), st.lists(st.text()), st.complex_numbers()))
def test_readers_take_anything(answer: Any) -> None:
    for read in (as_number, as_fraction, as_address, as_name):
        read(answer)
    fraction = as_fraction(answer)
    assert fraction is None or -1e309 < fraction < 1e309
