"""The tables and the chart of what was measured."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from html import escape
from importlib.metadata import version
from pathlib import Path

from cases import LOCAL, PEER, SESSION, Result
from rig import ROOT, Rig

DOCUMENT = ROOT / "docs" / "performance.md"
CHART = ROOT / "docs" / "performance.svg"
BEGIN = "<!-- measured: begin (written by make bench) -->"
END = "<!-- measured: end -->"

BASELINES = {LOCAL: "UNLOGGED table", PEER: "Python SDK", SESSION: "compared with"}


def machine(rig: Rig) -> str:
    """One paragraph on the machine and the software of the measurement."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    with rig.administrator() as connection:
        server, extension = connection.execute(
            "SELECT current_setting('server_version'), extversion FROM pg_extension WHERE extname = 'cdf_fdw'"
        ).fetchone()
    today = datetime.datetime.now(datetime.timezone.utc).date()
    return (
        f"Measured on {today.isoformat()}: {model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB of memory, "
        f"Linux {platform.release()}; PostgreSQL {server.split()[0]}, cdf_fdw {extension} (rustc {rustc}), "
        f"cognite-sdk {version('cognite-sdk')}, Python {platform.python_version()}."
    )


def met(result: Result) -> str:
    return {True: "yes", False: "**no**", None: ""}[result.met]


def line(result: Result) -> str:
    """A result in one line of text."""
    parts = [result.work, result.baseline, result.measured, result.figure.replace("**", ""), result.target, met(result)]
    return " | ".join(part for part in parts if part)


def tables(results: list[Result], machine_: str, rounds: int) -> str:
    """Markdown: a table for each group, and what the loads cost."""
    out = [f"{machine_} Medians of {rounds} rounds; in parentheses the least and the most of a round.", ""]
    for group, baseline in BASELINES.items():
        rows = [result for result in results if result.group == group]
        if not rows:
            continue
        out += [f"### {group[0].upper()}{group[1:]}", ""]
        out += [f"| work | {baseline} | cdf_fdw | ratio, spread | target | met? |", "|---|---|---|---|---|---|"]
        for row in rows:
            cells = (row.work, row.baseline, row.measured, row.figure, row.target, met(row))
            out.append("|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|")
        out.append("")
    costs = [result for result in results if result.cost]
    if costs:
        out += ["### What a load costs", ""]
        out += ["Seconds per million rows, and bytes per row, through cdf_fdw.", ""]
        out += ["| work | statements | COMMIT | CPU of the session | CPU of the sink | bytes | bytes compressed |"]
        out += ["|---|---|---|---|---|---|---|"]
        for result in costs:
            cost = result.cost
            seconds = (cost.statements, cost.commit, cost.backend_cpu, cost.sink_cpu)
            cells = [*(f"{part:.2f}" for part in seconds), f"{cost.plain_bytes:.0f}", f"{cost.wire_bytes:.0f}"]
            out.append(f"| {result.work} | {' | '.join(cells)} |")
        out.append("")
    return "\n".join(out)


def write(text: str, results: list[Result]) -> None:
    """Puts the tables between the markers of the document, and the chart beside it."""
    document = DOCUMENT.read_text()
    head, _, rest = document.partition(BEGIN)
    _, found, tail = rest.partition(END)
    if not found:
        raise RuntimeError(f"{DOCUMENT} has no markers")
    DOCUMENT.write_text(f"{head}{BEGIN}\n\n{text}\n{END}{tail}")
    CHART.write_text(chart(results))


WIDTH, LEFT, RIGHT, ROW, BAR = 960, 400, 90, 26, 15
MET, MISSED, INK, FAINT = "#1a7f5a", "#c2410c", "#1f2937", "#6b7280"


def chart(results: list[Result]) -> str:
    """An SVG of the ratios: a bar each, with a mark where its target is. Groups have their own scale."""
    body: list[str] = []
    top = 56

    def text(x: float, y: float, words: str, **attributes: str) -> None:
        extra = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
        body.append(f'<text x="{x:.1f}" y="{y:.1f}"{extra}>{escape(words)}</text>')

    for group in BASELINES:
        rows = [result for result in results if result.group == group and result.ratio is not None]
        if not rows:
            continue
        most = max(max(result.ratio, result.goal) for result in rows)
        scale = (WIDTH - LEFT - RIGHT) / most
        text(24, top + 12, "Speed of a repeated load" if group == SESSION else f"Speed {group}", font_weight="600")
        top += 26
        for result in rows:
            middle = top + ROW / 2
            colour = MET if result.met else MISSED
            text(LEFT - 12, middle + 4, result.work.replace("`", ""), text_anchor="end", font_size="11.5", fill=INK)
            body.append(
                f'<rect x="{LEFT}" y="{middle - BAR / 2:.1f}" width="{result.ratio * scale:.1f}" height="{BAR}" rx="3" '
                f'fill="{colour}"/>'
            )
            goal = LEFT + result.goal * scale
            body.append(
                f'<line x1="{goal:.1f}" x2="{goal:.1f}" y1="{middle - ROW / 2 + 2:.1f}" y2="{middle + ROW / 2 - 2:.1f}" '
                f'stroke="{INK}" stroke-width="2"/>'
            )
            end = LEFT + max(result.ratio, result.goal) * scale
            text(end + 8, middle + 4, f"{result.ratio:.2f}×", font_weight="600", font_size="12", fill=colour)
            top += ROW
        top += 18
    title = "cdf_fdw: how many times as fast"
    legend = "Bar: ratio of the median times, 1 is equally fast. Line: the target."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="{INK}" role="img">\n'
        f"<title>{title}</title>\n"
        f'<rect width="{WIDTH}" height="{top}" rx="14" fill="#ffffff"/>\n'
        f'<text x="24" y="34" font-size="17" font-weight="600">{title}</text>\n'
        f'<text x="{WIDTH - 24}" y="34" text-anchor="end" font-size="12" fill="{FAINT}">{legend}</text>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )
