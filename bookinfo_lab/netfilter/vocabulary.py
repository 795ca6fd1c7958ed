"""Which options iptables' matches and targets have, and how each is written: the table that reading and writing share.

Pure.  An option that is not here is kept as the words that stand after it, and named by `Rule.unmodelled`.
Follows iptables-extensions(8) and the extensions' own save functions.
"""

from . import kinds
from .kinds import FLAG, HEX, INTEGER, NAME, TEXT, Kind

# Options of the rule itself, long forms first.
LONG_FORMS = {
    "--source": "-s",
    "--src": "-s",
    "--destination": "-d",
    "--dst": "-d",
    "--in-interface": "-i",
    "--out-interface": "-o",
    "--protocol": "-p",
    "--proto": "-p",
    "--fragment": "-f",
    "--match": "-m",
    "--jump": "-j",
    "--goto": "-g",
}
RULE: dict[str, Kind] = {
    "-s": kinds.NETWORK,
    "-d": kinds.NETWORK,
    "-i": NAME,
    "-o": NAME,
    "-p": kinds.PROTOCOL,
    "-f": FLAG,
}
_PORTS = {"--sport": kinds.PORTS, "--dport": kinds.PORTS}
_CONNTRACK: dict[str, Kind] = {
    "--ctstate": kinds.WORDS,
    "--ctstatus": kinds.WORDS,
    "--ctproto": kinds.PROTOCOL,
    "--ctdir": NAME,
    "--ctexpire": kinds.NUMBERS_COLON,
    **dict.fromkeys(("--ctorigsrc", "--ctorigdst", "--ctreplsrc", "--ctrepldst"), kinds.NETWORK),
    **dict.fromkeys(("--ctorigsrcport", "--ctorigdstport", "--ctreplsrcport", "--ctrepldstport"), kinds.PORTS),
}
MATCHES: dict[str, dict[str, Kind]] = {
    "tcp": {**_PORTS, "--tcp-flags": kinds.TCP_FLAGS, "--syn": FLAG, "--tcp-option": INTEGER},
    "udp": _PORTS,
    "udplite": _PORTS,
    "sctp": {**_PORTS, "--chunk-types": kinds.SET},
    "dccp": {**_PORTS, "--dccp-types": NAME, "--dccp-option": INTEGER},
    "icmp": {"--icmp-type": kinds.ICMP_TYPE},
    "icmp6": {"--icmpv6-type": kinds.ICMPV6_TYPE},
    "multiport": dict.fromkeys(("--sports", "--dports", "--ports"), kinds.PORT_LIST),
    "comment": {"--comment": TEXT},
    "conntrack": _CONNTRACK,
    "state": {"--state": kinds.WORDS},
    "mark": {"--mark": kinds.MARK},
    "connmark": {"--mark": kinds.MARK},
    "addrtype": {
        **dict.fromkeys(("--src-type", "--dst-type"), kinds.WORDS),
        **dict.fromkeys(("--limit-iface-in", "--limit-iface-out"), FLAG),
    },
    "owner": {
        **dict.fromkeys(("--uid-owner", "--gid-owner"), kinds.OWNER),
        **dict.fromkeys(("--socket-exists", "--suppl-groups"), FLAG),
    },
    "statistic": {
        "--mode": NAME,
        "--probability": kinds.PROBABILITY,
        "--every": INTEGER,
        "--packet": INTEGER,
    },
    "recent": {
        **dict.fromkeys(
            ("--set", "--rcheck", "--update", "--remove", "--reap", "--rttl", "--rsource", "--rdest"), FLAG
        ),
        **dict.fromkeys(("--seconds", "--hitcount"), INTEGER),
        "--name": TEXT,
        "--mask": kinds.ADDRESS,
    },
    "nfacct": {"--nfacct-name": TEXT},
    "set": {
        "--match-set": kinds.SET,
        **dict.fromkeys(("--return-nomatch", "--update-counters", "--update-subcounters"), FLAG),
    },
    "limit": {"--limit": NAME, "--limit-burst": INTEGER},
    "hashlimit": {
        **dict.fromkeys(("--hashlimit-upto", "--hashlimit-above", "--hashlimit", "--hashlimit-mode"), NAME),
        "--hashlimit-burst": NAME,
        "--hashlimit-name": TEXT,
        **dict.fromkeys(("--hashlimit-srcmask", "--hashlimit-dstmask", "--hashlimit-htable-size"), INTEGER),
        **dict.fromkeys(
            ("--hashlimit-htable-max", "--hashlimit-htable-expire", "--hashlimit-htable-gcinterval"), INTEGER
        ),
    },
    "connlimit": {
        **dict.fromkeys(("--connlimit-above", "--connlimit-upto", "--connlimit-mask"), INTEGER),
        **dict.fromkeys(("--connlimit-saddr", "--connlimit-daddr"), FLAG),
    },
    "physdev": {
        **dict.fromkeys(("--physdev-in", "--physdev-out"), NAME),
        **dict.fromkeys(("--physdev-is-in", "--physdev-is-out", "--physdev-is-bridged"), FLAG),
    },
    "rpfilter": dict.fromkeys(("--loose", "--validmark", "--accept-local", "--invert"), FLAG),
    "socket": dict.fromkeys(("--transparent", "--nowildcard", "--restore-skmark"), FLAG),
    "pkttype": {"--pkt-type": NAME},
    "iprange": dict.fromkeys(("--src-range", "--dst-range"), kinds.ADDRESSES),
    "length": {"--length": kinds.NUMBERS_COLON},
    "ttl": dict.fromkeys(("--ttl-eq", "--ttl-gt", "--ttl-lt"), INTEGER),
    "hl": dict.fromkeys(("--hl-eq", "--hl-gt", "--hl-lt"), INTEGER),
    "dscp": {"--dscp": HEX, "--dscp-class": NAME},
    "tos": {"--tos": NAME},
    "mac": {"--mac-source": NAME},
    "helper": {"--helper": TEXT},
    "policy": {
        **dict.fromkeys(("--dir", "--pol", "--mode", "--proto", "--reqid", "--spi"), NAME),
        **dict.fromkeys(("--strict", "--next"), FLAG),
        **dict.fromkeys(("--tunnel-src", "--tunnel-dst"), NAME),
    },
    "rt": {
        **dict.fromkeys(("--rt-type", "--rt-len"), INTEGER),
        **dict.fromkeys(("--rt-segsleft", "--rt-0-addrs"), NAME),
        **dict.fromkeys(("--rt-0-res", "--rt-0-not-strict"), FLAG),
    },
}
MATCH_ALIASES = {"ipv6-icmp": "icmp6", "icmpv6": "icmp6"}  # a protocol's own options, where no -m names the module
_SET_MARKS: dict[str, Kind] = {
    "--set-xmark": kinds.SET_XMARK,
    "--set-mark": kinds.SET_MARK,
    "--and-mark": kinds.AND_MARK,
    "--or-mark": kinds.OR_MARK,
    "--xor-mark": kinds.XOR_MARK,
}
TARGETS: dict[str, dict[str, Kind]] = {
    **{name: {} for name in ("ACCEPT", "DROP", "RETURN", "NOTRACK", "TRACE")},
    "REJECT": {"--reject-with": NAME},
    "DNAT": {"--to-destination": kinds.TRANSLATION, "--random": FLAG, "--persistent": FLAG},
    "SNAT": {
        "--to-source": kinds.TRANSLATION,
        **dict.fromkeys(("--random", "--random-fully", "--persistent"), FLAG),
    },
    "MASQUERADE": {"--to-ports": kinds.PORTS_DASH, "--random": FLAG, "--random-fully": FLAG},
    "REDIRECT": {"--to-ports": kinds.PORTS_DASH, "--random": FLAG},
    "NETMAP": {"--to": kinds.NETWORK},
    "MARK": _SET_MARKS,
    "CONNMARK": {
        **_SET_MARKS,
        **dict.fromkeys(("--save-mark", "--restore-mark"), FLAG),
        **dict.fromkeys(("--nfmask", "--ctmask", "--mask"), HEX),
    },
    "TPROXY": {"--on-port": kinds.PORTS, "--on-ip": kinds.ADDRESS, "--tproxy-mark": kinds.SET_XMARK},
    "CT": {
        "--notrack": FLAG,
        **dict.fromkeys(("--zone", "--zone-orig", "--zone-reply"), NAME),
        **dict.fromkeys(("--helper", "--timeout", "--ctevents", "--expevents"), NAME),
    },
    "LOG": {
        "--log-prefix": TEXT,
        "--log-level": NAME,
        **dict.fromkeys(("--log-tcp-sequence", "--log-tcp-options", "--log-ip-options", "--log-uid"), FLAG),
        "--log-macdecode": FLAG,
    },
    "NFLOG": {
        "--nflog-prefix": TEXT,
        **dict.fromkeys(("--nflog-group", "--nflog-range", "--nflog-size", "--nflog-threshold"), INTEGER),
    },
    "NFQUEUE": {
        **dict.fromkeys(("--queue-num", "--queue-balance"), NAME),
        **dict.fromkeys(("--queue-bypass", "--queue-cpu-fanout"), FLAG),
    },
    "TCPMSS": {"--set-mss": INTEGER, "--clamp-mss-to-pmtu": FLAG},
    "CHECKSUM": {"--checksum-fill": FLAG},
    "CLASSIFY": {"--set-class": NAME},
    "TTL": dict.fromkeys(("--ttl-set", "--ttl-dec", "--ttl-inc"), INTEGER),
    "HL": dict.fromkeys(("--hl-set", "--hl-dec", "--hl-inc"), INTEGER),
    "DSCP": {"--set-dscp": HEX, "--set-dscp-class": NAME},
    "TOS": dict.fromkeys(("--set-tos", "--and-tos", "--or-tos", "--xor-tos"), NAME),
    "SET": {
        **dict.fromkeys(("--add-set", "--del-set", "--map-set"), kinds.SET),
        "--exist": FLAG,
        "--timeout": INTEGER,
    },
}
# Other spellings of options, and what they are read as.
ALIASES = {
    "--source-port": "--sport",
    "--destination-port": "--dport",
    "--source-ports": "--sports",
    "--destination-ports": "--dports",
    "--to-port": "--to-ports",
    **dict.fromkeys(("--set-mark", "--and-mark", "--or-mark", "--xor-mark"), "--set-xmark"),
}
