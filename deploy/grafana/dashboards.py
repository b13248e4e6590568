"""Make the dashboards' JSON from `panels.py` with Grafana's own SDK (extra `observe`).

    python deploy/grafana/dashboards.py [--check]

writes deploy/grafana/dashboards/*.json, or says with `--check` which of the committed files differ.
"""

from __future__ import annotations

import argparse
import json
import string
import sys
from pathlib import Path

from grafana_foundation_sdk.builders import common as c
from grafana_foundation_sdk.builders import dashboard as d
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as cm
from grafana_foundation_sdk.models import dashboard as dm
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from panels import BOARDS, Board, Panel

HERE = Path(__file__).resolve().parent
SOURCE = dm.DataSourceRef(type_val="prometheus", uid="$datasource")
RUNBOOKS = "http://127.0.0.1:9090/user"  # where `derma observe` serves docs/runbooks
AnyPanel = timeseries.Panel | stat.Panel | heatmap.Panel | table.Panel


def board_json(board: Board) -> str:
    """Return a dashboard as Grafana reads it."""
    made = (
        d.Dashboard(board.title).uid(board.uid).description(board.description).tags(["derma"]).readonly()
        .tooltip(dm.DashboardCursorSync.CROSSHAIR).refresh("5s").time("now-15m", "now")
        .with_variable(d.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(d.TextBoxVariable("runbooks").label("Runbooks at").default_value(RUNBOOKS))
        .link(d.DashboardLink("derma").type(dm.DashboardLinkType.DASHBOARDS).tags(["derma"]).include_vars(True)
              .keep_time(True))
    )  # fmt: skip
    if board.by_camera:
        made.with_variable(
            d.QueryVariable("camera").label("Camera").datasource(SOURCE).multi(True).include_all(True).all_value(".*")
            .query("label_values(derma_frames, camera)").refresh(dm.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(dm.VariableSort.ALPHABETICAL_ASC).current(dm.VariableOption(text="All", value="$__all"))
        )  # fmt: skip
    number = 0
    for title, panels in board.rows:
        number += 1
        made.with_row(d.Row(title).id(number))
        for panel in panels:
            number += 1
            made.with_panel(_panel(panel).id(number))
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _panel(panel: Panel) -> AnyPanel:
    made: AnyPanel
    match panel.kind:
        case "number":
            made = stat.Panel().graph_mode(cm.BigValueGraphMode.AREA).color_mode(cm.BigValueColorMode.VALUE)
        case "heatmap":
            made = _heatmap(panel)
        case "table":
            made = table.Panel()
        case _:
            made = _lines(panel)
    made.title(panel.title).description(panel.description).datasource(SOURCE).unit(panel.unit)
    made.span(panel.width).height(panel.height)
    if panel.kind != "heatmap":
        made.thresholds(_thresholds(panel))
    if panel.runbook:
        url = f"${{runbooks}}/{panel.runbook}.md"
        made.links([d.DashboardLink("What to do").type(dm.DashboardLinkType.LINK).url(url).target_blank(True)])
    for letter, (expression, legend) in zip(string.ascii_uppercase, panel.queries, strict=False):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(letter).datasource(SOURCE)
        if panel.kind == "heatmap":
            query.format(PromQueryFormat.HEATMAP)
        if panel.kind == "table":
            query.format(PromQueryFormat.TABLE).instant()
        made.with_target(query)
    return made


def _lines(panel: Panel) -> timeseries.Panel:
    stacked = panel.kind == "stacked"
    legend = (
        c.VizLegendOptions().show_legend(True).placement(cm.LegendPlacement.BOTTOM)
        .display_mode(cm.LegendDisplayMode.TABLE if stacked else cm.LegendDisplayMode.LIST)
        .calcs(["lastNotNull"] if stacked else [])
    )  # fmt: skip
    made = (
        timeseries.Panel().legend(legend).min(0).line_width(1).fill_opacity(70 if stacked else 8)
        .tooltip(c.VizTooltipOptions().mode(cm.TooltipDisplayMode.MULTI).sort(cm.SortOrder.DESCENDING))
        .show_points(cm.VisibilityMode.NEVER)
    )  # fmt: skip
    if stacked:
        made.stacking(c.StackingConfig().mode(cm.StackingMode.NORMAL).group("A"))
    if panel.steps:
        made.thresholds_style(c.GraphThresholdsStyleConfig().mode(cm.GraphThresholdsStyleMode.DASHED))
    return made


def _heatmap(panel: Panel) -> heatmap.Panel:
    colours = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    return heatmap.Panel().calculate(False).color(colours).y_axis(heatmap.YAxisConfig().unit(panel.unit))


def _thresholds(panel: Panel) -> d.ThresholdsConfig:
    steps = panel.steps
    base = "green" if not steps or steps[0][0] > 0 else steps[0][1]
    rest = [dm.Threshold(value=value, color=colour) for value, colour in steps if value > 0]
    return d.ThresholdsConfig().mode(dm.ThresholdsMode.ABSOLUTE).steps([dm.Threshold(color=base), *rest])


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 when a file differs")
    check = parser.parse_args().check
    different = []
    for board in BOARDS:
        path, text = HERE / "dashboards" / f"{board.uid}.json", board_json(board)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            different.append(path.name)
        if not check:
            path.write_text(text, encoding="utf-8")
    print("\n".join(f"{name} differs" if check else f"{name} written" for name in different))
    return 1 if check and different else 0


if __name__ == "__main__":
    sys.exit(main())
