"""Why the kernel refused, as far as the machine says so, and the line that lifts it.

Pure: an errno and `Surroundings` in, (why, mend) out.  Where nothing that was read explains a refusal, why says
that the cause is unknown.  Follows user_namespaces(7), namespaces(7), proc(5) and the sysctls of Debian and Ubuntu.
"""

import errno
import os

from bookinfo_lab.doctor.findings import Finding, Surroundings

CONTAINER_LINE = (
    "docker run --privileged …  (or: --cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined --security-opt systempaths=unconfined)"
)
_CAP_SYS_ADMIN, _CAP_NET_ADMIN = 21, 12
_REFUSED = (errno.EPERM, errno.EACCES)
_FEDORA_NAMES = {
    "iproute2": "iproute",
    "iptables": "iptables-nft",
    "uidmap": "shadow-utils",
    "conntrack": "conntrack-tools",
    "tshark": "wireshark-cli",
}


def user_namespace(finding: Finding, here: Surroundings) -> tuple[str, str]:
    """Why no user namespace could be made."""
    who = _who(here)
    if finding.errno in (errno.ENOSPC, errno.EUSERS):
        return _used_up("user.max_user_namespaces", who, here)
    if finding.errno in (errno.EINVAL, errno.ENOSYS):
        return f"{who}this kernel knows no user namespaces", "boot a kernel that was built with CONFIG_USER_NS=y"
    if finding.errno not in _REFUSED:
        return f"{who}{_unknown(finding)}", ""
    if here.settings.get("kernel.unprivileged_userns_clone") == 0 and not _has(here, _CAP_SYS_ADMIN):
        return f"{who}kernel.unprivileged_userns_clone is 0", _sysctl("kernel.unprivileged_userns_clone=1", here)
    return _restriction(finding, here) or (f"{who}{_unknown(finding)}", "")


def namespaces(finding: Finding, here: Surroundings) -> tuple[str, str]:
    """Why one of the other namespaces could not be made; the finding's text starts with its kind."""
    kind = finding.text.partition(":")[0]
    if finding.errno in (errno.ENOSPC, errno.EUSERS):
        return _used_up(f"user.max_{kind}_namespaces", "", here)
    if finding.errno in (errno.EINVAL, errno.ENOSYS):
        return (
            f"this kernel knows no {kind} namespaces",
            f"boot a kernel that was built with CONFIG_{kind.upper()}_NS=y",
        )
    return _restriction(finding, here) or (_unknown(finding), "")


def own_root(finding: Finding, here: Surroundings) -> tuple[str, str]:
    """Why the sandbox's own file system could not be mounted."""
    if finding.errno == errno.ENOSYS and "mount_setattr" in finding.text:
        return f"{finding.text}: it came with Linux 5.12, this is {here.release}", "boot a newer kernel"
    if finding.errno in _REFUSED and "mount(proc" in finding.text and here.covered:
        covered = ", ".join(here.covered[:4])
        why = f"{finding.text}: the kernel refuses a fresh /proc while parts of this one are covered ({covered})"
        return why, CONTAINER_LINE if here.container else "start where nothing is mounted below /proc"
    if finding.errno in _REFUSED:
        return _restriction(finding, here) or (_unknown(finding), "")
    return _unknown(finding), ""


def extension(text: str, module: str, here: Surroundings) -> tuple[str, str]:
    """Why iptables-nft-restore did not load a rule: its own library is absent, or the kernel's part is."""
    if "Couldn't load" in text or "does not exist" in text or "nknown option" in text:
        return f"iptables lacks this extension: {text}", f"{install('iptables', here)}  (reinstall it, or a newer one)"
    if "missing kernel module" in text or "No such file" in text or "not supported" in text:
        return f"the kernel lacks it: {text}", f"{here.sudo}modprobe -a nft_compat {module}"
    return f"{text}; the cause is unknown", ""


def install(package: str, here: Surroundings) -> str:
    """The line that installs a package, named as Debian names it."""
    if {"debian", "ubuntu"} & set(here.distribution):
        return f"{here.sudo}apt-get install {package}"
    if {"fedora", "rhel"} & set(here.distribution):
        return f"{here.sudo}dnf install {_FEDORA_NAMES.get(package, package)}"
    return f"install what Debian calls {package} with this system's package manager"


def newuidmap(text: str, here: Surroundings) -> tuple[str, str]:
    """Why newuidmap is there and did not map the user's range."""
    if here.no_new_privs:
        mend = "start it from a process without no_new_privs (Kubernetes: allowPrivilegeEscalation: true)"
        return f"{text}; no_new_privs is set on this process, so newuidmap gets no privilege", mend
    return f"{text}; the cause is unknown", f"{install('uidmap', here)}  (reinstall it)"


def _who(here: Surroundings) -> str:
    if here.uid != 0:
        return ""
    lacking = [
        name
        for bit, name in ((_CAP_SYS_ADMIN, "CAP_SYS_ADMIN"), (_CAP_NET_ADMIN, "CAP_NET_ADMIN"))
        if not _has(here, bit)
    ]
    return f"root here lacks {' and '.join(lacking)}, so a user namespace is needed; " if lacking else ""


def _has(here: Surroundings, bit: int) -> bool:
    return bool(here.capabilities >> bit & 1)


def _used_up(setting: str, who: str, here: Surroundings) -> tuple[str, str]:
    limit = here.settings.get(setting)
    if limit == 0:
        return f"{who}{setting} is 0", _sysctl(f"{setting}=15000", here)
    why = f"{who}the limit {setting} ({limit}), here or further out, is used up, or namespaces nest too deep"
    return why, _sysctl(f"{setting}={2 * limit}", here) if limit else ""


def _restriction(finding: Finding, here: Surroundings) -> tuple[str, str] | None:
    """What of the things that are known to refuse namespaces and mounts is in force here; surest first."""
    words = f"{finding.text}: " if finding.text else ""
    if here.filtered:
        why = f"{_who(here)}{words}a seccomp filter refuses unshare, even of nothing"
        return why, _without_filter(here)
    if here.settings.get("kernel.apparmor_restrict_unprivileged_userns") == 1 and here.uid != 0:
        why = f"{words}kernel.apparmor_restrict_unprivileged_userns is 1 (Ubuntu's AppArmor restriction)"
        return why, _sysctl("kernel.apparmor_restrict_unprivileged_userns=0", here)
    line = CONTAINER_LINE if here.container else ""
    if _who(here):
        why = _who(here).partition(", so")[0]
        return f"{words}{why}", line or "start it with CAP_SYS_ADMIN and CAP_NET_ADMIN, or as an ordinary user"
    if here.container:
        return f"{words}there are marks of a {here.container} container; the cause may be its restrictions", line
    if here.seccomp:
        return f"{words}a seccomp filter is on this process; whether it is the cause is unknown", _without_filter(here)
    return None


def _without_filter(here: Surroundings) -> str:
    return CONTAINER_LINE if here.container else f"start it without the filter; in a container: {CONTAINER_LINE}"


def _unknown(finding: Finding) -> str:
    word = errno.errorcode.get(finding.errno, "")
    text = finding.text or os.strerror(finding.errno)
    return f"{text}{f' ({word})' if word else ''}; the cause is unknown"


def _sysctl(line: str, here: Surroundings) -> str:
    return f"{here.sudo}sysctl -w {line}"
