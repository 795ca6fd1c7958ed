import pytest

from bookinfo_lab.netfilter.rule_text import mark_bit, one_of, rule


# As iptables-save printed them on real nodes: today's with 10 decimals, those of 2017 with 5.
@pytest.mark.parametrize(
    ("remaining", "digits", "printed"),
    [
        (2, 10, "0.50000000000"),
        (3, 10, "0.33333333349"),
        (2, 5, "0.50000000000"),
        (3, 5, "0.33332999982"),
        (9, 5, "0.11110999994"),
        (10, 5, "0.10000000009"),
    ],
)
def test_a_probability_is_printed_as_the_kernel_stored_it(remaining, digits, printed):
    assert one_of(remaining, digits) == f"statistic --mode random --probability {printed}"


@pytest.mark.parametrize(("bit", "mark"), [(0, "0x1"), (14, "0x4000"), (31, "0x80000000")])
def test_a_mark_bit_is_written_in_hexadecimal(bit, mark):
    assert mark_bit(bit) == mark


def test_the_parts_of_a_rule_stand_in_the_order_of_iptables_save():
    written = rule(
        "X", not_source="10.0.0.0/8", destination="1.2.3.4/32", out="lo", protocol="tcp", comment="c", matches=("tcp",)
    )
    assert written == '! -s 10.0.0.0/8 -d 1.2.3.4/32 -o lo -p tcp -m comment --comment "c" -m tcp -j X'
    assert rule("X", source="10.0.0.0/8", not_destination="1.2.3.4/32") == "-s 10.0.0.0/8 ! -d 1.2.3.4/32 -j X"
    assert rule("", comment="counts") == '-m comment --comment "counts"'
