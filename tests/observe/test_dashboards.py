"""The committed dashboards: complete, without overlap, and exactly what the code makes."""

from __future__ import annotations

import importlib.util
import itertools
import re
import subprocess
import sys

import pytest
from support.observing import DEPLOY, alerts, board, board_expressions, recorded

from derma_common.contract import CONTRACT

NAMES = sorted(path.stem for path in (DEPLOY / "grafana" / "dashboards").glob("*.json"))
UNITS = {"s", "cps", "percentunit", "none", "bytes", "celsius", "watt"}
RUNBOOKS = DEPLOY.parent / "docs" / "runbooks"
OF_PROMETHEUS = {"up", "scrape_duration_seconds"}


def panels(name, *, rows=False):
    return [p for p in board(name)["panels"] if rows or p["type"] != "row"]


def test_the_dashboards_are_known_with_their_own_uids():
    assert NAMES == ["derma-cloud", "derma-host", "derma-latency", "derma-pipeline"]
    assert len({board(name)["uid"] for name in NAMES}) == len({board(name)["title"] for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_panels_have_their_own_ids_and_do_not_overlap(name):
    everything = panels(name, rows=True)
    assert len({p["id"] for p in everything}) == len(everything)
    for a, b in itertools.combinations((p["gridPos"] for p in everything), 2):
        apart = (a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"] or a["y"] + a["h"] <= b["y"]
                 or b["y"] + b["h"] <= a["y"])  # fmt: skip
        assert apart, (a, b)
    assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in everything)


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_says_what_it_shows_and_in_what_unit(name):
    for panel in panels(name):
        assert panel["title"] and panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["targets"], panel["title"]
        if panel["type"] != "heatmap":
            steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
            assert steps[0]["value"] is None and all(step["color"] for step in steps)


@pytest.mark.parametrize("name", NAMES)
def test_every_query_asks_the_chosen_datasource_and_has_its_letter(name):
    assert {v["name"] for v in board(name)["templating"]["list"]} >= {"datasource", "runbooks"}
    for panel in panels(name):
        assert panel["datasource"] == {"type": "prometheus", "uid": "$datasource"}, panel["title"]
        assert [t["refId"] for t in panel["targets"]] == list("ABC")[: len(panel["targets"])]
        assert all(t["datasource"]["uid"] == "$datasource" for t in panel["targets"])
        assert len({t["legendFormat"] for t in panel["targets"]}) == len(panel["targets"]), "two lines with one name"


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_to_a_runbook(name):
    links = [link["url"] for panel in panels(name) for link in panel.get("links", ())]
    assert links
    for url in links:
        assert (RUNBOOKS / url.removeprefix("${runbooks}/")).is_file(), url


@pytest.mark.parametrize("name", NAMES)
def test_panels_ask_only_for_metrics_of_the_contract(name):
    known = {spec.name for spec in CONTRACT} | set(recorded()) | OF_PROMETHEUS
    known |= {f"{s.name}_{part}" for s in CONTRACT if s.kind == "histogram" for part in ("bucket", "sum", "count")}
    for title, expression in board_expressions(name):
        asked = set(re.findall(r"(?:camera:|stage:)?\b(?:derma_|scrape_)\w+(?::\w+)?|\bup\b", expression))
        assert asked and asked <= known, (title, asked - known)


def test_every_alert_has_a_runbook_that_names_it():
    pages = {page.name: page.read_text() for page in RUNBOOKS.glob("*.md")}
    text = (DEPLOY / "prometheus" / "rules" / "alerts.yml").read_text()
    for alert in alerts():
        block = re.split(rf"- alert: {alert}\b", text)[1].split("- alert:")[0]
        match = re.search(r'runbook_url: "\{\{ \$externalURL \}\}/user/([\w-]+\.md)"', block)
        assert match and f"`{alert}`" in pages[match[1]], alert
    assert all(re.findall(r"`Derma\w+`", page) for page in pages.values()), "a page that no alert leads to"


def test_the_code_makes_the_committed_files():
    if importlib.util.find_spec("grafana_foundation_sdk") is None:
        pytest.skip("needs Grafana's SDK (pip install 'derma[observe]')")
    done = subprocess.run(
        [sys.executable, str(DEPLOY / "grafana" / "dashboards.py"), "--check"], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
