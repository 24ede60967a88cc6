"""Measure the sandbox beside its baselines and hold it against the performance budget.

All contenders are up at the same time and take turns, several rounds long, so
that whatever else the machine does hits all of them alike. A ratio is taken
within a round; the table shows the median of the rounds.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import signal
import statistics
import sys
import tempfile

import budget
import processes
from contenders import BenchError, Case, Limit, Ours, spawn

HERE = pathlib.Path(__file__).resolve().parent
CORES = len(os.sched_getaffinity(0))
PANDAS = ("numpy", "pandas")
CASES = [
    Case("spaced", "one client, 20 ms between requests", 1, think=0.02),
    Case("single", "one client, back to back", 1),
    Case("saturated", f"{4 * CORES} clients", 4 * CORES),
    Case(
        "pandas",
        f"{4 * CORES} clients, numpy and pandas",
        4 * CORES,
        code='import numpy, pandas\nprint("NONCE")',
        preload=PANDAS,
        stretch={"spawn": 2},
    ),
]
PARKED = (1, 10, 100, 1000)


class Measurement:
    """The rounds as they come in, and the faults that were seen on the way."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.wrong = 0
        self.faults = []

    def take(self, contender, case):
        figures = contender.measure(case, self.seconds * case.stretch.get(contender.name, 1))
        self.wrong += figures["wrong"]
        for word in ("errors", "wrong"):
            if figures[word]:
                note = f"{contender.name}, {case.title}: {figures[word]} {word}"
                self.faults.append(f"{note}, first: {figures.get('first_fault', 'unknown')}")
        if not figures["runs"]:
            raise BenchError(f"{contender.name} completed no run of: {case.title}. {figures.get('first_fault', '')}")
        return figures

    def rounds(self, count, contenders):
        """Let everybody take each case in turn; who begins changes from round to round."""
        taken = []
        for number in range(count):
            say(f"round {number + 1} of {count}")
            taken.append({})
            for case in CASES:
                entries = [(name, pick(case)) for name, pick in contenders.items()]
                shift = number % len(entries)
                entries = entries[shift:] + entries[:shift]
                taken[-1][case.name] = {name: self.take(contender, case) for name, contender in entries}
        return taken

    def growth(self, ours, worker_bytes, rounds):
        """Return the saturated rate by parked workers and by cores; None where it was not to be had."""
        sizes = {}
        with contextlib.ExitStack() as stack:
            for size in PARKED:
                sizes[size] = None
                if size * worker_bytes > processes.available() / 2:
                    say(f"growth: {size} parked workers do not fit into memory, skipped")
                    continue
                server = stack.enter_context(ours.start(idle=size))
                if processes.await_settled(server.process.pid, size) is None:
                    say(f"growth: {size} parked workers did not settle, skipped")
                    continue
                sizes[size] = server
            parked = self.in_turns("parked workers", sizes, rounds)
        everything, cores = sorted(os.sched_getaffinity(0)), {}
        with contextlib.ExitStack() as stack:
            # What is started from here inherits the cores that this process has: the server, and later its load.
            stack.callback(os.sched_setaffinity, 0, everything)
            size = 1
            while size <= CORES:
                os.sched_setaffinity(0, everything[:size])
                cores[size] = stack.enter_context(ours.start())
                size *= 2
            counts = self.in_turns("cores", cores, rounds, lambda size: os.sched_setaffinity(0, everything[:size]))
        return {"parked": parked, "cores": counts}

    def in_turns(self, of_what, servers, rounds, prepare=lambda size: None):
        """Return the median rate of each server. They take turns, or the machine's moods would pass for growth."""
        case = next(case for case in CASES if case.name == "saturated")
        rates = {size: [] for size in servers}
        for _ in range(rounds):
            for size, server in servers.items():
                if server is not None:
                    prepare(size)
                    rates[size].append(self.take(server, case)["runs_per_second"])
        growth = {}
        for size, taken in rates.items():
            growth[str(size)] = statistics.median(taken) if taken else None
            if taken:
                say(f"growth: {size} {of_what}, {growth[str(size)]:.0f} runs/s")
        return growth


def medians(rounds):
    """Return the median over the rounds of each figure of each contender."""
    summary = {}
    for case in rounds[0]:
        summary[case] = {}
        for name, first in rounds[0][case].items():
            summary[case][name] = {
                word: statistics.median(one[case][name][word] for one in rounds)
                for word, value in first.items()
                if isinstance(value, (int, float))
            }
            for word in ("runs", "errors", "wrong"):
                summary[case][name][word] = sum(one[case][name][word] for one in rounds)
    return summary


def machine(python_version, caddy_version):
    model = "unknown"
    with contextlib.suppress(OSError, StopIteration):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return {
        "cores": CORES,
        "cpu": model,
        "memory_available_bytes": processes.available(),
        "kernel": platform.release(),
        "python": python_version,
        "caddy": caddy_version,
        "load_average": os.getloadavg()[0],
    }


def report(results, lines):
    facts = results["machine"]
    print(
        f"\n{results['date']}, {facts['cores']} cores ({facts['cpu']}), Linux {facts['kernel']}, "
        f"Python {facts['python']}, load average before: {facts['load_average']:.2f}"
    )
    print(f"{results['rounds']} rounds of {results['seconds']:g} s; medians\n")
    contenders = []
    for case in CASES:
        for name, figures in results["medians"][case.name].items():
            contenders.append(
                [case.title, name, f"{figures['p50_ms']:.2f}", f"{figures['p99_ms']:.2f}"]
                + [f"{figures['runs_per_second']:.1f}", figures["runs"], figures["errors"]]
            )
    print(budget.table(["load", "who", "p50 ms", "p99 ms", "runs/s", "runs", "errors"], contenders))
    print()
    header = ["budget", "measured", "rounds", "must", "aim", ""]
    print(budget.table(header, [line.cells() for line in lines]))
    for name, figures in results["memory"].items():
        if "fault" in figures:
            print(f"\nmemory, {name}: {figures['fault']}")
            continue
        print(
            f"\nA parked worker, {name}: {figures['pss_bytes'] / budget.MB:.2f} MB beyond the template's, "
            f"{figures['private_bytes'] / budget.MB:.2f} MB of it private, {figures['processes']:.1f} processes.",
            end="",
        )
    print()


def say(words):
    print(f"bench: {words}", file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter with the requirements")
    parser.add_argument("--load", required=True, help="the built load generator")
    parser.add_argument("--caddy", default=str(HERE.parent / "bin" / "caddy"), help="the built server")
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("BENCH_SECONDS") or 3))
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("BENCH_ROUNDS") or 3))
    parser.add_argument("--growth", action="store_true", default=os.environ.get("BENCH_GROWTH") == "1")
    parser.add_argument("--isolation", default=os.environ.get("BENCH_ISOLATION", ""), help="default: the product's")
    parser.add_argument("--baselines", action="store_true", help="measure limit and spawn only")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results.json")
    return parser.parse_args()


def bench(args, folder, stack):
    ours = Ours(args.caddy, args.python, args.load, folder, args.isolation)
    facts = machine(platform.python_version(), "not measured" if args.baselines else ours.version())
    measurement, memory, growth = Measurement(args.seconds), {}, {}

    if not args.baselines:
        # First, while nothing else of the bench maps the same libraries.
        for name, preload in (("bare", ()), ("pandas", PANDAS)):
            say(f"memory of a parked worker, {name}")
            memory[name] = processes.parked_worker(ours, preload)
        if args.growth:
            growth = measurement.growth(ours, memory["bare"].get("pss_bytes", 3 * budget.MB), args.rounds)

    limit = Limit(args.python, CORES)
    service = stack.enter_context(spawn(args.python, args.load, folder))
    contenders = {"limit": lambda case: limit, "spawn": lambda case: service}
    if not args.baselines:
        servers = {preload: stack.enter_context(ours.start(preload)) for preload in ((), PANDAS)}
        contenders["ours"] = lambda case: servers[case.preload]
    rounds = measurement.rounds(args.rounds, contenders)

    lines = budget.rows(rounds, memory, growth)
    results = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": facts,
        "seconds": args.seconds,
        "rounds": args.rounds,
        "budget": [line.record() for line in lines],
        "medians": medians(rounds),
        "memory": memory,
        "growth": growth,
        "faults": measurement.faults,
        "figures": rounds,
    }
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    report(results, lines)
    for fault in measurement.faults:
        say(fault)
    # A missed figure is for people to judge; a wrong answer is never right.
    return 1 if measurement.wrong else 0


def main():
    # A plain SIGTERM would leave the servers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args = arguments()
    if not args.baselines and not os.access(args.caddy, os.X_OK):
        say(f"{args.caddy} is missing: build it first, or measure the baselines alone with --baselines")
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, contextlib.ExitStack() as stack:
            return bench(args, pathlib.Path(folder), stack)
    except BenchError as e:
        say(str(e))
        return 1


if __name__ == "__main__":
    sys.exit(main())
