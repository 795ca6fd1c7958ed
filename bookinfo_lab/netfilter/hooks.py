"""The order in which the kernel asks tables and takes decisions about a packet on its way.

Pure.  A stage is ``TABLE CHAIN`` (a base chain) or the name of a decision that `walk` takes there.  Follows the hook
priorities in the kernel's linux/netfilter_ipv4.h; nat is asked for a connection's first packet only.
"""

ARRIVES = ("raw PREROUTING", "conntrack", "mangle PREROUTING", "nat PREROUTING", "route in")
# The nft tools have put security behind nat on INPUT; the legacy tools' kernel modules have it before.
DELIVERS = ("mangle INPUT", "filter INPUT", "nat INPUT", "security INPUT", "delivered")
DELIVERS_LEGACY = ("mangle INPUT", "filter INPUT", "security INPUT", "nat INPUT", "delivered")
FORWARDS = ("mangle FORWARD", "filter FORWARD", "security FORWARD", "leaving")
SENDS = (
    *("route out", "raw OUTPUT", "conntrack", "mangle OUTPUT", "reroute by mark", "nat OUTPUT", "reroute by address"),
    *("filter OUTPUT", "security OUTPUT", "leaving"),
)
LEAVES = ("mangle POSTROUTING", "nat POSTROUTING", "leaves")
# A packet that left by lo comes in there: its connection has its NAT, its route is still the one it was sent by.
COMES_AGAIN = ("raw PREROUTING", "mangle PREROUTING", "mangle INPUT", "filter INPUT", "security INPUT", "delivered")
DESTINATION_NAT = ("nat PREROUTING", "nat OUTPUT")
SOURCE_NAT = ("nat INPUT", "nat POSTROUTING")
