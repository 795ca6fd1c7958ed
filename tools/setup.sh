#!/bin/sh
# Find a Python that is new enough and let it run setup.py beside this file.
#
# Order: $PYTHON where it is set; for root /usr/bin/python3, because an interpreter below /root cannot be run by the
# ordinary users that root starts things as; python3 on PATH; python3.14 … python3.11 on PATH.
# Ends with 2 and one line where none is new enough.
set -eu

here=$(cd "$(dirname "$0")" && pwd)

new_enough() {
    "$1" -E -s -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

candidates() {
    if [ -n "${PYTHON:-}" ]; then
        echo "$PYTHON"
        return
    fi
    if [ "$(id -u)" = 0 ]; then
        case ":$PATH:" in *:/usr/bin:*) echo /usr/bin/python3 ;; esac
    fi
    echo python3
    for minor in 14 13 12 11; do echo "python3.$minor"; done
}

for python in $(candidates); do
    if command -v "$python" >/dev/null 2>&1 && new_enough "$python"; then
        exec "$python" -B -E -s "$here/setup.py"
    fi
done

asked=${PYTHON:-python3}
found=$("$asked" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || found=none
echo "set-up: Python 3.11 or newer is needed, $asked gives $found:" \
    "install one (Debian 12, Ubuntu 24.04: apt-get install python3), or name it: make PYTHON=/path/to/python3.11 ..." >&2
exit 2
