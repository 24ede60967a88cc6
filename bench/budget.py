"""The performance budget: what must be reached, what is aimed at, what was measured."""

import itertools
import statistics
from dataclasses import dataclass

MB = 1e6


def ratio(rounds, case, other, figure="runs_per_second"):
    """Return ours over other in each round: both saw the same machine a moment apart."""
    values = []
    for one in rounds:
        ours, theirs = one[case].get("ours", {}).get(figure), one[case].get(other, {}).get(figure)
        if ours and theirs:
            values.append(ours / theirs)
    return values


@dataclass
class Row:
    title: str
    values: list
    must: float
    aim: float
    smaller: bool = False
    show: str = "{:.2f}"

    @property
    def measured(self):
        return statistics.median(self.values) if self.values else None

    def reached(self, bound):
        return self.measured <= bound if self.smaller else self.measured >= bound

    def verdict(self):
        if self.measured is None:
            return "not measured"
        if not self.reached(self.must):
            return "short"
        return "ok, aim reached" if self.reached(self.aim) else "ok"

    def text(self, value):
        if value is None:
            return "-"
        if self.show == "1/":
            return f"1/{1 / value:.1f}".removesuffix(".0")
        return self.show.format(value)

    def cells(self):
        spread = ""
        if len(self.values) > 1:
            ends = sorted(self.values, reverse=self.show == "1/")
            spread = f"{self.text(ends[0])} to {self.text(ends[-1])}"
        return [self.title, self.text(self.measured), spread, self.text(self.must), self.text(self.aim), self.verdict()]

    def record(self):
        return {
            "title": self.title,
            "measured": self.measured,
            "rounds": self.values,
            "must": self.must,
            "aim": self.aim,
            "verdict": self.verdict(),
        }


def rows(rounds, memory, growth):
    """Return the rows of the budget, in its order."""

    def to_spawn(title, case, must, aim, show):
        return Row(f"{title}: runs/s, to spawn", ratio(rounds, case, "spawn"), must, aim, show=show)

    spaced = ratio(rounds, "spaced", "spawn", "p50_ms")
    tail = [
        one["saturated"]["ours"]["p99_ms"] / one["saturated"]["ours"]["p50_ms"]
        for one in rounds
        if one["saturated"].get("ours", {}).get("p50_ms")
    ]
    lines = [
        Row("one client, 20 ms between requests: p50, to spawn", spaced, 1 / 12, 1 / 30, True, "1/"),
        to_spawn("one client, back to back", "single", 12, 20, "{:.1f}"),
        Row("saturated: runs/s, to limit", ratio(rounds, "saturated", "limit"), 0.6, 0.9),
        to_spawn("saturated", "saturated", 8, 12, "{:.1f}"),
        to_spawn("saturated, numpy and pandas", "pandas", 60, 100, "{:.0f}"),
        Row("saturated: p99 over p50", tail, 2, 1.5, True),
    ]
    for name, must, aim in (("bare", 3, 1.5), ("pandas", 6, 3)):
        pss = memory.get(name, {}).get("pss_bytes")
        values = [] if pss is None else [pss / MB]
        lines.append(Row(f"memory of a parked worker, {name}, MB", values, must, aim, True, "{:.1f}"))
    if growth:
        # A tenth is noise between two runs, not a fall.
        parked = steps(growth["parked"])
        lines.append(Row("growth: runs/s with ten times the parked workers", parked, 0.9, 0.9))
        cores = steps(growth["cores"])
        lines.append(Row("growth: runs/s with twice the cores", cores, 0.95, 1.8))
    return lines


def steps(rates):
    """Return each rate over the one of the size before it, the smallest first: the worst step decides."""
    known = [rates[size] for size in sorted(rates, key=int) if rates[size]]
    return sorted(b / a for a, b in itertools.pairwise(known))[:1]


def table(header, lines):
    """Lay out a table that reads well in a terminal and is Markdown too."""
    widths = [max(len(str(line[i])) for line in [header, *lines]) for i in range(len(header))]

    def row(cells):
        first, *rest = cells
        padded = [str(first).ljust(widths[0]), *(str(c).rjust(w) for c, w in zip(rest, widths[1:]))]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([row(header), rule, *map(row, lines)])
