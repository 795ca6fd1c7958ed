#!/bin/bash
# Records again the rules that four firewalls of Debian write: record.sh [FOLDER-OF-DEBS], as root, on Debian 12.
#
# Everything happens in namespaces of its own, on a copy-on-write layer over this machine's root: packages are unpacked
# there (nothing is installed, no maintainer script runs, no service is started), and the layer is gone with the script.
# Debs that the folder lacks are fetched by `apt-get download`.  The results lie beside this file.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C

PACKAGES="docker.io tini busybox-static ufw firewalld python3-firewall python3-nftables python3-cap-ng ipset libipset13
shorewall shorewall-core"

interfaces() {
    ip link set lo up
    for number in 0 1; do
        ip link add "eth$number" type veth peer name "far$number"
        ip link set "far$number" up
    done
    ip address add 192.168.3.24/24 dev eth0
    ip address add 2001:db8:3::24/64 dev eth0 nodad
    ip address add 10.1.0.1/24 dev eth1
    ip link set eth0 up
    ip link set eth1 up
    ip route add default via 192.168.3.1
}

save() { # NAME: rules of both families; the legacy tools' with counters, addresses and routes once
    for family in "" 6; do
        file="/out/$1-$backend${family:+-ip6}.save"
        "ip${family}tables-save" $([ "$backend" = nft ] || echo --counters) >"$file"
        grep -q '^\(\[.*\] \)\?-A' "$file" || rm "$file" # shorewall writes IPv4 rules alone
    done
    ip -j address >"/out/$1.addr.json"
    ip -j route show table all >"/out/$1.routes.json"
}

with_ufw() {
    cp /usr/share/ufw/iptables/*.rules /usr/share/ufw/ufw.conf /etc/ufw/
    chmod 640 /etc/ufw/*.rules
    mkdir -p /var/lib/ufw
    printf '[Bookinfo]\ntitle=Bookinfo\ndescription=the pages\nports=9080/tcp|9443:9445/tcp\n' >/etc/ufw/applications.d/bookinfo
    cat >>/etc/ufw/before.rules <<'END'
*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -s 10.1.0.0/24 -o eth0 -j MASQUERADE
COMMIT
END
    ufw --force enable
    ufw logging medium
    ufw default reject incoming
    ufw limit ssh
    ufw allow Bookinfo
    ufw allow in on eth0 proto tcp from 10.0.0.0/8 to any port 80,443,8000:8010
    ufw deny proto udp from 203.0.113.0/24 to 192.168.3.24 port 53
    ufw reject out log proto tcp to any port 25
    ufw allow from any port 5353 proto udp
    ufw allow to any proto gre from 198.51.100.7
    ufw route allow in on eth0 out on eth1 log-all to 10.1.0.5 port 8080 proto tcp
    ufw route deny in on eth1 to 169.254.0.0/16
}

with_firewalld() {
    mkdir -p /run/dbus
    dbus-daemon --system --fork
    sed -i 's/^FirewallBackend=.*/FirewallBackend=iptables/; s/^LogDenied=.*/LogDenied=unicast/' /etc/firewalld/firewalld.conf
    while read -r line; do
        eval "firewall-offline-cmd $line"
    done <<'END'
--zone=public --add-interface=eth0
--zone=internal --add-interface=eth1
--zone=public --add-service=http
--zone=public --add-masquerade
--zone=public --add-forward-port=port=8080:proto=tcp:toport=80:toaddr=10.1.0.5
--zone=public --add-forward-port=port=8443:proto=tcp:toport=443
--zone=public --add-icmp-block=timestamp-request
--zone=public --add-port=6000-6010/udp
--zone=public --add-protocol=gre
--zone=public --add-source-port=5353/udp
--zone=public --add-rich-rule='rule family="ipv4" source address="198.51.100.0/24" service name="ssh" log prefix="ssh from outside" level="info" limit value="3/m" accept'
--zone=public --add-rich-rule='rule family="ipv4" source NOT address="203.0.113.0/24" port port="25" protocol="tcp" reject type="icmp-admin-prohibited"'
--zone=public --add-rich-rule='rule family="ipv6" source address="2001:db8:7::/48" port port="9080" protocol="tcp" accept'
--zone=public --add-rich-rule='rule priority="-10" family="ipv4" destination address="10.1.0.9" mark set="0x10/0xff"'
--zone=drop --add-source=192.0.2.0/24
--zone=trusted --add-source=02:00:00:00:00:07
--direct --add-rule ipv4 filter INPUT 0 -p tcp --dport 9080 -m comment --comment "Bookinfo's own" -j ACCEPT
END
    firewalld --nofork --nopid >/var/log/firewalld.out 2>&1 &
    daemon=$!
    until iptables-save | grep -q "Bookinfo"; do kill -0 $daemon; sleep .2; done
    until ip6tables-save | grep -q "2001:db8:7::"; do kill -0 $daemon; sleep .2; done
}

with_shorewall() {
    cp /usr/share/doc/shorewall/examples/two-interfaces/* /etc/shorewall/
    rm /etc/shorewall/*.annotated
    sed -i 's/^STARTUP_ENABLED=.*/STARTUP_ENABLED=Yes/' /etc/shorewall/shorewall.conf
    cat >>/etc/shorewall/rules <<'END'
DNAT              net               loc:10.1.0.5:8080    tcp      80
DNAT              net:203.0.113.0/24  loc:10.1.0.6       tcp,udp  53
REDIRECT          loc               3128                 tcp      www   -  !10.1.0.9
ACCEPT:info:web   net               $FW                  tcp      443   -  -  s:3/min:5
Limit(SSHA,3,60):info  net          $FW                  tcp      22
ACCEPT            loc:10.1.0.7-10.1.0.20  $FW            tcp      5000:5010,6000
REJECT            $FW               net                  tcp      25    -  -  -  nobody
?COMMENT the pages of Bookinfo, port 9080
ACCEPT            net               loc:10.1.0.0/25      tcp      9080
?COMMENT
END
    printf 'MARK(0x10/0xff):P eth1 0.0.0.0/0 udp 4500\nDSCP(CS1):F eth1 10.9.0.0/16 tcp 873\nSAVE(0xff):P eth1 0.0.0.0/0\n' >/etc/shorewall/mangle
    mkdir -p /var/lib/shorewall
    shorewall start
}

with_docker() {
    for name in $(awk '!/^#/ && $2 {print $1}' /proc/cgroups); do
        mkdir "/sys/fs/cgroup/$name"
        mount -t cgroup -o "$name" cgroup "/sys/fs/cgroup/$name"
    done
    dockerd --data-root /var/lib/docker --exec-root /run/docker --storage-driver vfs --log-level error \
        --experimental --ip6tables --ipv6 --fixed-cidr-v6 fd00:d::/64 >/var/log/docker.out 2>&1 &
    daemon=$!
    trap without_docker EXIT
    until docker version >/dev/null 2>&1; do kill -0 $daemon; sleep .2; done
    mkdir -p /image/bin
    cp /bin/busybox /image/bin/busybox
    ln -s busybox /image/bin/sleep
    tar -C /image -c . | docker import - tiny
    bridge=com.docker.network.bridge
    docker network create --subnet 172.20.0.0/16 -o $bridge.name=br-shop shop
    docker network create --subnet 172.21.0.0/16 -o $bridge.name=br-inner --internal inner
    docker network create --subnet 172.22.0.0/16 -o $bridge.name=br-alone -o $bridge.enable_icc=false alone
    run="docker run --detach"
    $run --name front --publish 8080:80 tiny /bin/sleep 1000
    $run --name dns --network shop --ip 172.20.0.9 --publish 127.0.0.1:5353:53/udp \
        --publish 192.168.3.24:9000-9002:9000-9002 tiny /bin/sleep 1000
    $run --name lone --network alone --publish 8443:443 tiny /bin/sleep 1000
    $run --name inner --network inner tiny /bin/sleep 1000
}

without_docker() { # its cgroups are the one thing that does not end with the namespaces
    docker rm --force $(docker ps --quiet)
    kill $daemon
    wait $daemon || true
    find /sys/fs/cgroup -depth -path '*/docker*' -type d -exec rmdir {} +
}

inside() { # NAME BACKEND, in the namespaces
    backend=$2
    for tool in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
        ln -sf "xtables-$backend-multi" "/usr/sbin/$tool"
    done
    interfaces
    "with_$1"
    save "$1"
}

layer() { # NAME BACKEND DEBS OUT: makes the layer and goes in
    mount --make-rprivate /
    mount -t tmpfs none /mnt
    mkdir /mnt/upper /mnt/scratch /mnt/root
    mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/scratch /mnt/root
    for deb in "$3"/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar --extract --keep-directory-symlink --directory /mnt/root
    done
    mkdir /mnt/root/out
    mount --bind "$4" /mnt/root/out
    mount --rbind /dev /mnt/root/dev
    mount -t proc proc /mnt/root/proc
    mount -t sysfs sysfs /mnt/root/sys
    for place in sys/fs/cgroup run tmp; do mount -t tmpfs none "/mnt/root/$place"; done
    cp "$0" /mnt/root/record.sh
    exec chroot /mnt/root /bin/bash /record.sh --inside "$1" "$2"
}

case ${1-} in
--inside) inside "$2" "$3" ;;
--layer) layer "$2" "$3" "$4" "$5" ;;
*)
    out=$(dirname "$(realpath "$0")")
    debs=$(realpath "${1:-$(mktemp -d)}")
    for package in $PACKAGES; do
        ls "$debs/${package}"_*.deb >/dev/null 2>&1 || (cd "$debs" && apt-get -q download "$package")
    done
    for name in docker ufw firewalld shorewall; do
        for backend in nft legacy; do
            echo "== $name, $backend"
            unshare --mount --net --pid --uts --ipc --cgroup --fork --kill-child \
                bash "$0" --layer "$name" "$backend" "$debs" "$out" >"/tmp/record-$name.log" 2>&1 ||
                { tail -20 "/tmp/record-$name.log"; exit 1; }
            rm "/tmp/record-$name.log"
        done
    done
    ;;
esac
