"""A walk and the chain explorer in JupyterLab, by keyboard: readable, followed, gone back, accessible."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def neighbour(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


new_user = neighbour("test_new_user")
server = new_user.server
pytestmark = [pytest.mark.browser, pytest.mark.sandbox]

SET_UP = """
import ipaddress
from bookinfo_lab.netfilter.facts import Facts
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.netfilter.ruleset import parse
from bookinfo_lab.show.walk import Walk
lots = [f"-A SVC -m statistic --mode random --probability {1 / (3 - n):.11f} -j SEP-{n}" for n in range(2)]
ends = [f"-A SEP-{n} -p tcp -j DNAT --to-destination 10.1.0.{n + 1}:80" for n in range(3)]
others = [f"-A SERVICES -d 10.96.0.{n}/32 -p tcp -m tcp --dport 80 -j SVC" for n in range(1, 60)]
names = [f":{name} - [0:0]" for name in ("SERVICES", "SVC", "SEP-0", "SEP-1", "SEP-2")]
text = "\\n".join(["*nat", ":PREROUTING ACCEPT [0:0]", ":POSTROUTING ACCEPT [0:0]", *names,
    '-A PREROUTING -m comment --comment "' + "W" * 120 + '" -j SERVICES', *others,
    "-A SERVICES -p tcp -m tcp --dport 30080 -j SVC", *lots, "-A SVC -j SEP-2", *ends,
    "-A POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN", "-A POSTROUTING -j MASQUERADE", "COMMIT", ""])
node = ipaddress.ip_address("10.0.0.1")
rules = parse(text, facts=Facts(owned=frozenset([node])))
walk = Walk(rules.walk(Packet("192.0.2.7", 40000, node, 30080, iif="eth0")), rules)
walk
""".strip()
# Texts of the drawing that leave their box, and the least contrast of a text with its drawing's ground.
OUTSIDE = """() => [...document.querySelectorAll('.jp-Notebook svg[role=img] g')].flatMap(group => {
    const box = group.querySelector('rect').getBBox();
    return [...group.querySelectorAll('text')].filter(text => {
        const own = text.getBBox();
        return own.x < box.x || own.x + own.width > box.x + box.width || own.y + own.height > box.y + box.height + 1;
    }).map(text => text.textContent);
})"""
CONTRAST = """() => {
    const light = colour => {
        const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map(Number).map(
            part => (part /= 255) <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const grounds = [...document.querySelectorAll('.jp-Notebook svg[role=img] rect')].map(
        rect => light(getComputedStyle(rect).fill));
    return Math.min(...[...document.querySelectorAll('.jp-Notebook svg[role=img] text')].flatMap(text => {
        const own = light(getComputedStyle(text).fill);
        return grounds.map(ground => (Math.max(own, ground) + 0.05) / (Math.min(own, ground) + 0.05));
    }));
}"""
FOCUSED = "() => document.activeElement.innerText || document.activeElement.tagName"
SHOWN = "() => document.querySelector('.jp-Notebook .widget-html-content strong').innerText"


def focus(learner: Any, name: str, most: int = 30) -> None:
    """Tab until the control with this text has the focus."""
    for _ in range(most):
        if learner.page.evaluate(FOCUSED).strip().startswith(name):
            return
        learner.page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not get to {name!r}, but to {learner.page.evaluate(FOCUSED)!r}")


def shows(learner: Any, headline: str) -> None:
    learner.page.wait_for_function(f"headline => ({SHOWN})().startsWith(headline)", arg=headline, timeout=10_000)


def test_a_walk_is_drawn_and_its_chains_explored_by_keyboard(server: Any, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    learner = new_user.Keyboard(page)
    learner.open(server.url)
    learner.add(SET_UP)
    cell = learner.cells()[learner.run()]
    assert new_user.errors(cell) == []
    page.wait_for_selector(".jp-Notebook svg[role=img]")
    assert page.evaluate("() => document.querySelectorAll('.jp-Notebook svg[role=img] text').length") > 30
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=theme)
        page.wait_for_timeout(500)  # the theme's colours come by a style sheet
        learner.shot(f"walk-{theme.split()[1].lower()}")
        assert page.evaluate(OUTSIDE) == []
        assert page.evaluate(CONTRAST) >= 4.5
    new_user.accessible(learner, ".jp-Notebook figure")

    learner.add("walk.explore()")
    index = learner.run()
    assert new_user.errors(learner.cells()[index]) == []
    page.wait_for_selector(".jp-Notebook .widget-html-content strong")
    shows(learner, "nat PREROUTING: 1 rule; policy ACCEPT; the walk matched 1")
    learner.command("k")
    focus(learner, "Follow the jump")
    page.keyboard.press("Enter")
    shows(learner, "nat SERVICES: 60 rules, 51 to 60 shown; the walk matched 60")
    assert page.evaluate(FOCUSED).strip() == "Follow the jump"
    page.keyboard.press("Space")
    shows(learner, "nat SVC: 3 rules; the walk matched 1, 2, 3")
    learner.shot("explorer-svc")
    focus(learner, "Back")
    page.keyboard.press("Enter")
    shows(learner, "nat SERVICES: 60 rules")
    focus(learner, "Earlier rules")
    page.keyboard.press("Enter")
    shows(learner, "nat SERVICES: 60 rules, 26 to 50 shown")
    learner.shot("explorer-page")
    new_user.accessible(learner, ".jp-Notebook .widget-vbox")
    page.get_by_label("Chain names with:").fill("sep-1")
    page.keyboard.press("Enter")
    chains = page.get_by_label("Chain:", exact=True)
    offered = "[...document.querySelectorAll('option')].map(one => one.text.replaceAll('\\u00a0', ' '))"
    met = f"() => {offered}.filter(text => text.endsWith('(met)')).join()"
    page.wait_for_function(f"() => ({met})() === 'SEP-1 (met),SERVICES (met)'")
    chains.select_option(index=0)
    shows(learner, "nat SEP-1: 1 rule")
    page.close()
