"""A comparison of two models for people: a table in Markdown, and intervals as SVG."""

from collections.abc import Mapping, Sequence
from typing import Any

from dashboards.report.svg import BLACK, dot, line, page, text

COLUMNS = (
    *("suite", "metric", "candidate", "champion", "difference", "low", "high", "p_adjusted"),
    *("n", "groups", "contaminated", "difference_clean"),
)
WIDTH, ROW, TOP = 880, 26, 48
LABEL, LEFT, RIGHT = 300, 320, 620
BETTER_OR_WORSE, OPEN = "#1f6feb", "#57606a"


def markdown(comparison: Mapping[str, Any]) -> str:
    """The whole comparison: who, the verdict with its reasons, every metric."""
    rows = [[_cell(row[name]) for name in COLUMNS] for row in comparison["rows"]]
    return "\n".join(
        [
            f"# {' + '.join(comparison['candidates'])} against {' + '.join(comparison['champions'])}",
            "",
            f"**{comparison['verdict']['outcome'].replace('_', ' ')}**",
            "",
            *(f"- {reason}" for reason in comparison["verdict"]["reasons"]),
            "",
            "Differences are candidate minus champion over the same items, low and high the ends of a two-sided",
            "interval, p_adjusted the p-value after Holm's correction over all rows. Items of one document are one",
            "group. difference_clean leaves out contaminated items. The interval of a single training on each side",
            "does not know what another seed would have given; the verdict does, by release.criteria.",
            "",
            *(
                [f"Not measured on every model: {', '.join(comparison['left_out'])}.", ""]
                if comparison["left_out"]
                else []
            ),
            *(f"| {' | '.join(row)} |" for row in (COLUMNS, ["---"] * len(COLUMNS), *rows)),
            "",
        ]
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")


def svg(rows: Sequence[Mapping[str, Any]]) -> str:
    """Every difference with its interval beside zero, each row on a scale of its own; the clean one below as a mark."""
    body = [text(LABEL, 20, "metric", "end"), text((LEFT + RIGHT) / 2, 20, "candidate minus champion", "middle")]
    height = TOP + ROW * len(rows)
    body.append(line((LEFT + RIGHT) / 2, 30, (LEFT + RIGHT) / 2, height - 10, BLACK))
    for number, row in enumerate(rows):
        y = TOP + ROW * number
        low, high = (row["difference"] if row[name] is None else row[name] for name in ("low", "high"))
        reach = max(abs(low), abs(high)) or 1.0
        colour = BETTER_OR_WORSE if low > 0 or high < 0 else OPEN
        ends = [_across(value, reach) for value in (low, high)]
        body += [
            text(LABEL, y + 4, f"{row['suite']}/{row['metric']}", "end"),
            line(ends[0], y, ends[1], y, colour, 3),
            dot(_across(row["difference"], reach), y, colour),
            text(RIGHT + 16, y + 4, f"{row['difference']:+.4g} ({low:+.4g} to {high:+.4g})", fill=colour),
        ]
        if row["contaminated"] and row["difference_clean"] is not None:
            clean = _across(max(-reach, min(reach, row["difference_clean"])), reach)
            body.append(line(clean, y + 4, clean, y + 11, BLACK, 2))
    return page(body, WIDTH, height)


def _across(value: float, reach: float) -> float:
    return (LEFT + RIGHT) / 2 + value / reach * (RIGHT - LEFT) / 2
