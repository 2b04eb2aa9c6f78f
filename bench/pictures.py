"""What of the results is put into pictures: see `charts.py` for how they are drawn."""

from dataclasses import replace
from pathlib import Path
from statistics import median

from charts import Bar, Chart, Panel
from peers import PEERS
from report import Results
from targets import PORTICO

LEGEND = (("ours", "Portico"), ("limit", "what it is measured against"), ("other", "others"))
OURS = ("memory", "Redis", "bypass", "miss", "32 identical", "hit", "Portico", "1 model", "100 models", "1,000", "edge")
LIMITS = ("Envoy", "TF Serving, called", "TorchServe, called", "echo", "relay", "GET")
ROOM = 1.6
"""The longest bar, as a ratio; what is longer is cut, and its number stands beside it."""


def _kind(name: str) -> str:
    if name.startswith(LIMITS):
        return "limit"
    return "ours" if name.startswith(("gateway without", *OURS)) else "other"


def _beside_peers(results: Results, kind: str) -> Panel | None:
    """Envoy, Portico and all peers: each as a ratio to Envoy in its own rounds, Portico in those of all peers."""
    keys = [key for key in results.groups if key.startswith("peer-") and key.endswith(f"-{kind}")]
    if not keys:
        return None
    bars, ours = [], []
    for key in keys:
        limit, name = results.groups[key]["limit"], list(results.groups[key]["sides"])[-1]
        label = name if PEERS[name].cached else f"{name.removesuffix('-nocache')}, no cache"
        bars.append(replace(_ratio(results, key, name, limit), name=label))
        ours += list(zip(results.side(key, PORTICO) or [], results.side(key, limit) or [], strict=True))
    ratio = median(mine["rate"] / envoy["rate"] for mine, envoy in ours)
    rates = [median(each["rate"] for each in side) for side in zip(*ours, strict=True)]
    first = [
        Bar("Envoy answers by itself", "limit", 1.0, f"1.00 ({rates[1]:,.0f}/s)"),
        Bar(PORTICO, "ours", ratio, f"{ratio:.2f} ({rates[0]:,.0f}/s)"),
    ]
    title = f"{'gRPC' if kind == 'grpc' else 'REST'}, 32 in flight"
    return Panel(title, [*first, *sorted(bars, key=lambda bar: -bar.value)])


def _ratio(results: Results, key: str, name: str, limit: str) -> Bar:
    ratio = results.beside(key, name, limit, "rate") or 0.0
    rate = results.median(key, name, lambda each: each["rate"]) or 0.0
    return Bar(name, _kind(name), ratio, f"{ratio:.2f} ({rate:,.0f}/s)")


def hits(results: Results) -> Chart:
    """The one for who reads only one: beside the peers that were measured, else beside Envoy."""
    panels = [panel for kind in ("rest", "grpc") if (panel := _beside_peers(results, kind))]
    panels = panels or [_panel(results, key) for key in ("hits-rest-32", "hits-grpc-32") if key in results.groups]
    subtitle = "as a ratio to Envoy, which answers by itself, in the same round; more is better"
    return Chart("The same request again and again, on one core", subtitle, panels, LEGEND, most=1.0)


def _panel(results: Results, key: str) -> Panel:
    group = results.groups[key]
    return Panel(group["title"], [_ratio(results, key, name, group["limit"]) for name in group["sides"]])


def throughput(results: Results) -> Chart:
    """Ratios to each group's limit."""
    keys = [key for key in results.groups if not key.startswith("peer-") and not key.endswith("-1")]
    panels = [_panel(results, key) for key in keys]
    subtitle = "as a ratio to the first line of each part; more is better"
    return Chart("How many answers", subtitle, panels, LEGEND, most=ROOM)


def latency(results: Results) -> Chart:
    """Milliseconds, where requests come one at a time."""
    panels = []
    for key, group in results.groups.items():
        if key.endswith("-1"):
            bars = []
            for name in group["sides"]:
                p50 = results.median(key, name, lambda each: each["p50"]) or 0.0
                p99 = results.median(key, name, lambda each: each["p99"]) or 0.0
                bars.append(Bar(name, _kind(name), p50, f"{p50:.2f} … {p99:.2f} ms", p99))
            panels.append(Panel(group["title"], bars))
    subtitle = "milliseconds, one request at a time: dot p50, line to p99; less is better"
    return Chart("How long one request takes", subtitle, panels, LEGEND, log=True)


def draw(results: Results, folder: Path) -> None:
    """Writes hits.svg, throughput.svg and latency.svg."""
    folder.mkdir(exist_ok=True)
    charts = {"hits": hits(results), "throughput": throughput(results), "latency": latency(results)}
    for name, chart in charts.items():
        if chart.panels:
            (folder / f"{name}.svg").write_text(chart.svg())
