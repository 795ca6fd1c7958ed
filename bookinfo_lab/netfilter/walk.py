"""Where a packet goes through a ruleset, and why: every branch, rule by rule.

Pure.  A Ruleset and a Packet come in, a Trace goes out.  A branch is a `State`; it forks where a rule is random and
where the answer hangs on a fact that was not given, which its outcomes then name in ``depends_on``.  What is not
modelled ends its branch as unknown with the rule's name.  One walk covers one network namespace, from where the packet
comes in or is sent to where it leaves or is delivered.  The kernel is what it is tested against.
"""

from collections.abc import Sequence
from dataclasses import replace

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.fields import Address
from bookinfo_lab.trace import Outcome, Seen, Step, Trace, Verdict

from . import hooks, targets
from .deciding import Decision, decide
from .facts import Facts
from .matching import Condition, failing
from .packet import Packet, socket_address
from .rule import Rule
from .ruleset import Ruleset
from .sieve import Program
from .state import Frame, Open, State

MOST_OUTCOMES = 20_000
MOST_JUMPS = 10_000  # in one hook; the kernel refuses chains that jump in a circle, a file may hold some
_LEFT_OUT = "were left out of this recording"  # what a recording of a shared cluster says above its rules
_TABLES_ASSUMED = ("raw", "mangle", "nat", "filter")


def walk(ruleset: Ruleset, packet: Packet, facts: Facts | None = None) -> Trace:
    """Where ``packet`` goes; ``facts`` are the ruleset's own unless given.

    Raises `LabError` for a packet of another IP version than the rules, `ParseError` for a rule on its way that cannot
    be read.
    """
    if ruleset.version not in (None, packet.src.version):
        raise LabError(
            f"{ruleset.source} has the rules of IPv{ruleset.version}, the packet is of IPv{packet.src.version}: "
            "give the other tool's text, or another packet"
        )
    facts = facts if facts is not None else ruleset.facts
    made = _Walk(ruleset, facts)
    starts = [State(packet, facts)]
    if packet.ct_state == "established":
        first = _Walk(ruleset, facts)
        first.go([State(replace(packet, ct_state="new"), facts)])
        starts = _after_first(packet, facts, first)
        made.assumes.update(first.assumes)
        if not starts:
            why = "these rules drop its first packet: the connection is taken to be older than they are, without NAT"
            made.assumes[why] = None
            starts = [State(packet, facts)]
    made.go(starts)
    absent = [name for name in _TABLES_ASSUMED if name not in ruleset.tables]
    if absent:
        made.assumes[f"tables that the text does not have hold no rules: {', '.join(absent)}"] = None
    for warning in ruleset.warnings:
        if _LEFT_OUT in warning:
            made.assumes[f"it is for none of those Services: {warning.removeprefix('Warning: ')}"] = None
    if facts is not None and facts.place and (facts.other_tables is None or facts.unread_tables):
        made.assumes[f"no {facts.unread_tables or 'other packet-filter tables'} decide beside these"] = None
    outcomes = _beside_others(made.outcomes, facts)
    question = f"Where does this packet go: {packet}?"
    return Trace(question, tuple(made.steps), outcomes, tuple(made.assumes), packet)


def _beside_others(outcomes: Sequence[Outcome], facts: Facts | None) -> tuple[Outcome, ...]:
    """No outcome is sure where tables that were not walked decide too."""
    others = facts.other_tables if facts is not None else None
    if not others:
        return tuple(outcomes)
    why = f"tables that are not among these rules decide too: {', '.join(others)}"
    return tuple(replace(outcome, verdict="unknown", why=why) for outcome in outcomes)


def _after_first(packet: Packet, facts: Facts | None, first: "_Walk") -> list[State]:
    """A state for each way in which the connection can have come about, with what conntrack then holds of it."""
    passed = [state for state, verdict in first.ends if verdict in ("accept", "unknown")]
    total = 1.0 if any(state.depends for state, _ in first.ends) else sum(state.probability for state in passed)
    found = []
    for end in passed:
        state = State(packet, facts)
        state.dnat, state.snat, state.source, state.ctmark = end.dnat, end.snat, end.source, end.ctmark
        state.entry_mark, state.masqueraded_by = end.ctmark, end.masqueraded_by
        state.known, state.depends, state.probability = dict(end.known), end.depends, end.probability / total
        state.changed()
        found.append(state)
    return found


class _Walk:
    """One walk: steps, outcomes and assumptions as they come, and the branches still to be walked."""

    def __init__(self, ruleset: Ruleset, facts: Facts | None) -> None:
        self.ruleset, self.facts = ruleset, facts
        self.steps: list[Step] = []
        self.outcomes: list[Outcome] = []
        self.ends: list[tuple[State, Verdict]] = []
        self.assumes: dict[str, None] = {}
        self._is_legacy = ruleset.backend == "legacy"
        self._work: list[State] = []

    def go(self, starts: list[State]) -> None:
        """Walk every branch to its end, the yes of a fork before its no."""
        for start in starts:
            start.stages = hooks.SENDS if start.has_socket else hooks.ARRIVES
        self._work = starts[::-1]
        while self._work:
            state: State | None = self._work.pop()
            while state is not None:
                if len(self.outcomes) + len(self._work) > MOST_OUTCOMES:
                    reason = f"the walk has more than {MOST_OUTCOMES:,} branches: say more of the packet and the host"
                    state = self._end(state, "unknown", reason)
                else:
                    state = self._rule(state) if state.stack else self._stage(state)

    # Stages

    def _stage(self, state: State) -> State | None:
        stage = state.stages[0]
        table, _, chain = stage.partition(" ")
        if table in _NOT_TABLES:
            return self._decide(state, stage)
        if stage in hooks.DESTINATION_NAT or stage in hooks.SOURCE_NAT:
            if state.ct == "established":
                if stage == "nat POSTROUTING" and _leaves_elsewhere(state):
                    why = f"it was masqueraded for {state.masqueraded_by} and leaves by {state.out}: it is forgotten"
                    return self._end(state, "drop", why)
                self._translate(state, stage)
            if state.ct not in ("new", "related"):
                return _next(state)
        if stage == "mangle OUTPUT":
            state.routed_mark = state.mark
        if chain not in self.ruleset.chains(table):
            return _next(state)
        state.jumps = 0
        self._enter(state, table, chain, ())
        return state

    def _decide(self, state: State, stage: str) -> State | None:
        if stage == "conntrack":
            if state.ct != "untracked":
                state.ct = state.tracked
            if state.has_template:
                state.ctmark = state.entry_mark  # what raw's rules saw and marked was the template
            return _next(state)
        before = state.view
        found = decide(stage, state)
        if isinstance(found, Open):
            return self._fork(state, found)
        self.assumes.update(dict.fromkeys(found.assumes))
        if found.what:
            self._step(state, found.where, found.what, True, found.why, before, state.changed(), "", found.word)
        return self._follow(state, found)

    def _follow(self, state: State, found: Decision) -> State | None:
        if found.ends:
            return self._end(state, found.ends, found.why)
        stages = found.stages if found.stages is not None else state.stages[1:]
        state.stages = hooks.DELIVERS_LEGACY if stages is hooks.DELIVERS and self._is_legacy else stages
        return state

    def _translate(self, state: State, stage: str) -> None:
        """What conntrack's entry does to every packet after the connection's first."""
        before = state.view
        if stage in hooks.DESTINATION_NAT and state.dnat is not None:
            state.set_destination(*state.dnat)
            why = f"the destination is now {state.dst_text}, as for the connection's first packet"
        elif stage in hooks.SOURCE_NAT and state.snat is not None:
            state.set_source(*state.snat)
            why = f"the source is now {state.src_text}, as for the connection's first packet"
        else:
            return
        self._step(state, "conntrack", "the connection's entry", True, why, before, state.changed(), "", "continue")

    # Rules

    def _program(self, table: str, chain: str) -> Program:
        found = self.ruleset.programs.get((table, chain))
        if found is None:
            found = self.ruleset.programs[table, chain] = Program(self.ruleset, table, chain)
        return found

    def _enter(self, state: State, table: str, chain: str, below: tuple[Frame, ...]) -> None:
        state.jumps += 1
        if state.jumps > MOST_JUMPS:
            raise LabError(f"{self.ruleset.source}: the chains of table {table} jump in a circle through {chain}")
        candidates = self._program(table, chain).candidates(state)
        state.stack = (*below, (table, chain, 0, candidates))

    def _rule(self, state: State) -> State | None:
        table, chain, position, candidates = state.stack[-1]
        program = self._program(table, chain)
        if not state.is_resumed:
            self._pass_over(state, program, position, candidates)
        if position == len(candidates):
            return self._chain_end(state, table, chain)
        rule, tests, written = program.rule(candidates[position])
        answer = self._match(state, rule, tests)
        if isinstance(answer, Open):
            return self._fork(state, answer)
        matched, why = answer
        state.is_resumed = False
        state.asked.clear()
        if written:
            state.forget(*written)
        if matched:
            return self._act(state, rule, why)
        self._step(state, rule.where, rule.text, matched, why, state.view, state.view, _line(rule), "continue")
        if matched is None and not targets.is_without_effect(rule):
            return self._end(state, "unknown", f"{rule.where}: {why}")
        return _advance(state)

    def _pass_over(self, state: State, program: Program, position: int, candidates: Sequence[int]) -> None:
        """One step for the rules before this candidate that name another address or port."""
        first = candidates[position - 1] + 1 if position else 0
        end = candidates[position] if position < len(candidates) else program.count
        if first == end:
            return
        where = f"{program.table} {program.chain} {first + 1}" + (f"–{end}" if end > first + 1 else "")
        why = f"each asks for another address or port than {state.dst_text}"
        self._step(state, where, f"{end - first} rules", False, why, state.view, state.view, "", "continue")

    def _match(self, state: State, rule: Rule, tests: tuple[Condition, ...]) -> Open | tuple[bool | None, str]:
        """Whether the rule matches and why; an Open to fork at; None where that cannot be told."""
        opened: list[Open] = []
        because: list[str] = []
        for condition in tests:
            found = condition.test(state)
            if isinstance(found, Open):
                known = state.known.get(found.question) if found.is_lasting else state.asked.get(found.question)
                if known is None:
                    opened.append(found)
                    continue
                if known == found.negated:
                    return False, failing(condition, state)
                because.append(_because(found, condition))
            elif not found:
                return False, failing(condition, state)
        if not opened:
            return True, "; ".join(because)
        if targets.is_without_effect(rule):
            return None, f"it hangs on: {opened[0].question}; the packet goes on alike"
        askable = [item for item in opened if not item.is_unmodelled]
        if askable:
            return askable[0]
        return None, f"{', '.join(item.question for item in opened)}: not modelled"

    def _fork(self, state: State, asked: Open) -> State:
        """Go on with the yes, keep the no for later."""
        other = state.copy()
        state.is_resumed = other.is_resumed = True
        if asked.is_lasting:
            state.known[asked.question], other.known[asked.question] = True, False
        else:
            state.asked[asked.question], other.asked[asked.question] = True, False
        if asked.probability is not None:
            state.probability *= asked.probability
            other.probability *= 1 - asked.probability
            if other.probability == 0:
                return state
            if state.probability == 0:
                return other
        else:
            state.depends = (*state.depends, asked.question)
            other.depends = (*other.depends, f"not: {asked.question}")
            if asked.settles is not None:
                state.settle(*asked.settles)
        self._work.append(other)
        return state

    def _act(self, state: State, rule: Rule, why: str) -> State | None:
        before, line = state.view, _line(rule)
        if rule.target in self.ruleset.chains(rule.table) and rule.target:
            word = "goto" if rule.is_goto else "jump"
            self._step(state, rule.where, rule.text, True, why, before, before, line, f"{word} {rule.target}")
            below = state.stack[:-1]
            if not rule.is_goto:
                table, chain, position, candidates = state.stack[-1]
                below = (*below, (table, chain, position + 1, candidates))
            self._enter(state, rule.table, rule.target, below)
            return state
        if rule.target in ("ACCEPT", "DROP", "RETURN"):
            self._step(state, rule.where, rule.text, True, why, before, before, line, rule.target.lower())
            if rule.target == "ACCEPT":
                return _next(state)
            if rule.target == "DROP":
                return self._end(state, "drop", f"dropped by {rule.where}")
            return self._back(state)
        choices = targets.addresses(rule) if rule.target in ("DNAT", "SNAT") else []
        if choices is None:
            return self._end(state, "unknown", f"{rule.where}: the kernel picks one of many addresses")
        if len(choices) > 1:
            return self._choose(state, rule, why, choices)
        return self._carry_out(state, rule, why, choices[0] if choices else None)

    def _choose(self, state: State, rule: Rule, why: str, choices: list[Address]) -> State | None:
        """A branch for each address that the kernel's hash may pick."""
        for address in choices:
            branch = state.copy()
            branch.depends = (*branch.depends, f"of the range in {rule.where} the kernel picks {address}")
            after = self._carry_out(branch, rule, why, address)
            if after is not None:
                self._work.append(after)
        return None

    def _carry_out(self, state: State, rule: Rule, why: str, address: Address | None) -> State | None:
        before = state.view
        effect = targets.act(rule, state, address)
        said = "; ".join(part for part in (why, effect.why) if part)
        after = state.changed() if effect.then != "continue" or effect.why else before
        self._step(state, rule.where, rule.text, True, said, before, after, _line(rule), effect.word)
        if effect.then == "continue":
            return _advance(state)
        if effect.then == "accept":
            return _next(state)
        return self._end(state, effect.then, f"{rule.where}: {effect.why}", effect.answer)

    def _chain_end(self, state: State, table: str, chain: str) -> State | None:
        if len(state.stack) == 1:
            return self._policy(state)
        view = state.view
        self._step(state, f"return {table} {chain}", f"the end of {chain}", True, "", view, view, "", "return")
        return self._back(state)

    def _back(self, state: State) -> State | None:
        if len(state.stack) == 1:
            return self._policy(state)
        state.stack = state.stack[:-1]
        return state

    def _policy(self, state: State) -> State | None:
        table, _, chain = state.stages[0].partition(" ")
        policy = self.ruleset.policy(table, chain)
        where = f"policy {table} {chain}"
        view = state.view
        self._step(state, where, f"the policy of {chain}", True, f"it is {policy}", view, view, "", policy.lower())
        if policy == "ACCEPT":
            return _next(state)
        if policy == "DROP":
            return self._end(state, "drop", f"dropped by the {where}")
        return self._end(state, "unknown", f"{where}: a program decides that reads the queue")

    # What comes out

    def _step(
        self,
        state: State,
        where: str,
        what: str,
        matched: bool | None,
        why: str,
        before: Seen,
        after: Seen,
        evidence: str,
        verdict: str,
    ) -> None:
        number = len(self.steps)
        self.steps.append(Step(number, state.parent, where, what, matched, why, before, after, evidence, verdict))
        state.parent = number

    def _end(self, state: State, verdict: Verdict, why: str, answer: str = "") -> State | None:
        out, seen_as, reply = "", "" if state.src is None else str(state.src), ""
        if verdict == "accept":
            out = "local" if state.stages[0] == "delivered" else state.out or ""
            reply = _reply(state)
        self.ends.append((state, verdict))
        self.outcomes.append(
            Outcome(
                verdict=verdict,
                destination=state.dst_text,
                source=state.source,
                seen_as=seen_as,
                mark=state.mark,
                out=out,
                probability=state.probability,
                depends_on=state.depends,
                answer=answer,
                reply=reply,
                step=state.parent,
                why=why,
            )
        )
        return None


_NOT_TABLES = frozenset(
    stage.partition(" ")[0]
    for stage in (*hooks.ARRIVES, *hooks.DELIVERS, *hooks.FORWARDS, *hooks.SENDS, *hooks.LEAVES)
    if not stage.split()[-1].isupper()
)


def _next(state: State) -> State:
    """This table's hook is over: on to the next stage."""
    state.stack, state.stages = (), state.stages[1:]
    return state


def _advance(state: State) -> State:
    table, chain, position, candidates = state.stack[-1]
    state.stack = (*state.stack[:-1], (table, chain, position + 1, candidates))
    return state


def _because(asked: Open, condition: Condition) -> str:
    if asked.probability is None:
        return f"in this branch: {condition.written}"
    chance = 1 - asked.probability if asked.negated else asked.probability
    return f"by chance, {chance:.4g}"


def _leaves_elsewhere(state: State) -> bool:
    """Whether an entry that MASQUERADE made for one interface meets a packet that leaves by another one."""
    return None not in (state.masqueraded_by, state.out) and state.masqueraded_by != state.out


def _line(rule: Rule) -> str:
    return f"line {rule.line}" if rule.line else ""


def _reply(state: State) -> str:
    if state.dnat is None and state.snat is None:
        return "its addresses stay as they are"
    source, sport, destination, dport = state.origin
    there, here = state.dst_text, state.src_text
    return (
        f"comes from {there} to {here}, goes on from {socket_address(destination, dport)} "
        f"to {socket_address(source, sport)}"
    )
