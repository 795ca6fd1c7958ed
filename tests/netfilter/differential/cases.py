"""Every kind of case, one after another, each made of its name alone: ``KIND/SEED/NUMBER``."""

from collections.abc import Iterator
from itertools import count
from random import Random

from differential import arbitrary, drill, istio, kube, long
from differential.case import Case

MAKERS = {"arbitrary": arbitrary.case, "drill": drill.case, "kube": kube.case, "istio": istio.case, "long": long.case}
ORDER = ("arbitrary", "drill", "kube", "arbitrary", "drill", "istio", "long")


def named(name: str, *, maps_owners: bool = True) -> Case:
    """The case of that name."""
    return MAKERS[name.partition("/")[0]](Random(name), name, maps_owners=maps_owners)


def cases(
    seed: str, *, maps_owners: bool = True, kinds: tuple[str, ...] = ORDER, part: int = 0, parts: int = 1
) -> Iterator[Case]:
    """Without end; of ``parts`` that share the work, the cases of one."""
    for number in count(part, parts):
        yield named(f"{kinds[number % len(kinds)]}/{seed}/{number}", maps_owners=maps_owners)
