"""Run CPython's own regression tests inside the sandbox and beside it, and hold the two against each other.

A module that behaves otherwise inside needs a reason in differences.json. Without one, or with less than 95 % of what
passes plainly passing inside, the exit status is 1.
"""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

from sides import FidelityError, Inside, Limits, Plain, resolve, token

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
DIFFERENCES = HERE / "differences.json"
MUST_PASS = 0.95
VERDICTS = ("passed", "failed", "skipped", "timeout")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="such as test_json; all of the test package when there are none")
    parser.add_argument("--caddy", default=HERE.parents[1] / "bin" / "caddy", type=pathlib.Path)
    parser.add_argument("--python", default=os.environ.get("SANDBOX_PYTHON", "python3"))
    parser.add_argument("--seconds", type=int, default=100, help="longest that a module may take on one side")
    parser.add_argument("--report", action="store_true", help="run nothing, hold the last results against the list")
    args = parser.parse_args()
    # Both stop it, even where a shell that started it behind has SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(compare(args))
    except FidelityError as e:
        sys.exit(f"fidelity: {e}")
    except KeyboardInterrupt:
        sys.exit("fidelity: stopped; the same command goes on from here")


def compare(args):
    differences = Differences(DIFFERENCES)
    python, version, prefixes = resolve(args.python)
    if args.report:
        results = json.loads(RESULTS.read_text())["modules"]
        return report({m: results[m] for m in args.modules or results}, differences, not args.modules)
    there = list_modules(python)
    if unknown := [m for m in args.modules if m not in there]:
        raise FidelityError(f"no module {', '.join(unknown)} in the package `test` of {python}")
    wanted = args.modules or there
    key = fingerprint(python, version, args)
    kept = load(key, everything=not args.modules)
    todo = [m for m in wanted if args.modules or m not in kept["modules"]]
    if len(todo) < len(wanted):
        print(f"{len(wanted) - len(todo)} modules are there from a run that was stopped")
    limits = Limits()
    with tempfile.TemporaryDirectory() as folder, Inside(args.caddy, python, pathlib.Path(folder), limits) as inside:
        plain = Plain(python, prefixes, limits)
        begin = time.monotonic()
        # One after the other: tests of time and of signals mind company.
        for number, module in enumerate(todo):
            pair = run_pair(module, plain, inside, args.seconds)
            if differs(pair) and differences.explain(module, pair)[1]:
                # Time and chance differ too: what counts is what differs twice.
                pair = run_pair(module, plain, inside, args.seconds)
                pair["again"] = True
            kept["modules"][module] = pair
            save(kept)
            left = (time.monotonic() - begin) / (number + 1) * (len(todo) - number - 1)
            print(f"{number + 1:3}/{len(todo)} {left / 60:4.0f} min left  {module}: {summary(pair)}", flush=True)
    kept["complete"] = not args.modules or kept["complete"]
    save(kept)
    return report({m: kept["modules"][m] for m in wanted}, differences, not args.modules)


def list_modules(python):
    done = subprocess.run([python, "-m", "test", "--list-tests"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    modules = [line for line in done.stdout.split("\n") if re.fullmatch(r"[\w.]*test_\w+", line)]
    if not modules:
        raise FidelityError(f"{python} has no package `test` to run (Debian: libpython3-testsuite); name another interpreter with SANDBOX_PYTHON")
    return modules


def fingerprint(python, version, args):
    """What a stopped run must have in common with this one to be gone on with."""
    digest = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    program, caddy = digest(HERE / "regrtest_main.py"), digest(args.caddy)
    return {"python": python, "version": version, "seconds": args.seconds, "program": program, "caddy": caddy}


def load(key, everything):
    """Return the results to go on with: those of a run that was stopped, else none. Of a complete run the modules that
    are not asked for again stay, so that one can be looked at without losing the rest."""
    try:
        kept = json.loads(RESULTS.read_text())
    except (OSError, ValueError):
        kept = {}
    if kept.get("key") != key or (kept.get("complete") and everything):
        kept = {"key": key, "complete": False, "modules": {}}
    return kept


def save(kept):
    beside = RESULTS.with_suffix(".new")
    beside.write_text(json.dumps(kept, indent=1) + "\n")
    beside.replace(RESULTS)


# --- one module --------------------------------------------------------------------------------------------------------

def run_pair(module, plain, inside, seconds):
    """Run a module plainly, then inside. What takes too long plainly says nothing of the sandbox."""
    pair = {"plain": run_module(plain, module, seconds)}
    if pair["plain"]["verdict"] == "timeout":
        pair["inside"] = {"verdict": "timeout", "note": "not run: it takes too long plainly", "failed": {}, "skipped": {}, "seconds": 0}
    else:
        pair["inside"] = run_module(inside, module, seconds)
    return pair


def run_module(side, module, seconds):
    word = token()
    # A module that hangs ends itself a little before it is ended, and says where it was.
    head = f"MODULE = {module!r}\nSECONDS = {seconds - 5}\nTOKEN = {word!r}\n"
    outcome = side.run(head + (HERE / "regrtest_main.py").read_text(), seconds)
    found = re.search(rf"^{word} (.*)$", outcome.stdout, re.MULTILINE)
    result = json.loads(found[1]) if found else {"failed": {}, "skipped": {}}
    result["verdict"] = verdict(outcome, bool(found))
    result["seconds"] = round(outcome.seconds, 1)
    if result["verdict"] in ("failed", "timeout") or not found:
        result["exit_code"] = outcome.exit_code
        result["output"] = outcome.stdout[-6000:]
        result["errors"] = outcome.stderr[-3000:]
    if skip := re.search(rf"^{re.escape(module)} skipped -- (.*)$", outcome.stdout, re.MULTILINE):
        result["note"] = skip[1]
    return result


def verdict(outcome, reported):
    """regrtest's own words, for its exit status is 0 for a module that was skipped."""
    if outcome.status == "timeout" or (not reported and "Timeout (" in outcome.stderr):
        return "timeout"
    text = outcome.stdout
    for word, pattern in (
        ("failed", r"^1 test failed|^1 re-run test"),
        ("skipped", r"^1 test skipped|^1 test run no tests|NO TESTS RAN"),
        ("passed", r"^1 test OK|^1 test altered the execution environment|^All 1 test OK|Result: SUCCESS$"),
    ):
        if reported and re.search(pattern, text, re.MULTILINE):
            return word
    return "failed"


# --- what differs --------------------------------------------------------------------------------------------------------

class Differences:
    """The kept list: why a module is otherwise inside."""

    def __init__(self, path):
        kept = json.loads(path.read_text())
        self.reasons, self.modules = kept["reasons"], kept["modules"]
        for module, names in self.modules.items():
            if unknown := set(names) - set(self.reasons):
                raise FidelityError(f"{path.name}: {module} names no reason: {', '.join(unknown)}")

    def explain(self, module, pair):
        """Return the reasons that cover every test that fails inside only, and the tests that none covers. A test is
        covered by a reason of its module whose expression is found in its traceback; a module that is otherwise as a
        whole by one that is found in its output."""
        inside = pair["inside"]
        texts = {test: inside["failed"][test] for test in news(pair)}
        if not texts:
            texts = {"as a whole": inside.get("output", "") + inside.get("errors", "")}
        covered, uncovered = [], []
        for test, text in texts.items():
            names = (n for n in self.modules.get(module, []) if re.search(self.reasons[n]["error"], test + "\n" + text, re.DOTALL))
            name = next(names, None)
            if name is None:
                uncovered.append(test)
            elif self.reasons[name]["reason"] not in covered:
                covered.append(self.reasons[name]["reason"])
        return covered, uncovered


def news(pair):
    """Return the tests that fail inside only."""
    return sorted(set(pair["inside"]["failed"]) - set(pair["plain"]["failed"]))


def differs(pair):
    return pair["plain"]["verdict"] != pair["inside"]["verdict"] or bool(news(pair))


def silently_skipped(pairs):
    """Count, by module and reason that the test gave, what does not show in a verdict."""
    counts = collections.Counter()
    for module, pair in pairs.items():
        skipped = pair["inside"]["skipped"]
        if not differs(pair):
            counts.update((module, skipped[test]) for test in sorted(set(skipped) - set(pair["plain"]["skipped"])))
    return counts


def summary(pair):
    plain, inside = pair["plain"], pair["inside"]
    text = f"{plain['verdict']} {plain['seconds']:.0f} s"
    if differs(pair):
        text += f", inside {inside['verdict']} {inside['seconds']:.0f} s: " + (", ".join(news(pair)[:4]) or "as a whole")
    return text


def report(pairs, differences, everything):
    unexplained = []
    print()
    for module, pair in pairs.items():
        if not differs(pair):
            continue
        covered, uncovered = differences.explain(module, pair)
        verdicts = f"{pair['inside']['verdict']} inside, {pair['plain']['verdict']} plainly"
        print(f"{module}: {verdicts}")
        for reason in covered:
            print(f"    {reason}")
        if uncovered:
            unexplained.append(module)
            print(f"    WITHOUT A REASON: {', '.join(uncovered)}")
    print("\nTests that are skipped inside only, in modules that agree:")
    for (module, why), count in silently_skipped(pairs).items():
        print(f"    {module}, {count}: {why}")
    if everything and (stale := [m for m in differences.modules if m in pairs and not differs(pairs[m])]):
        print(f"\nListed in differences.json and alike in this run: {', '.join(stale)}")

    counts = {side: collections.Counter(p[side]["verdict"] for p in pairs.values()) for side in ("plain", "inside")}
    print(f"\n{'':8}" + "".join(f"{verdict:>9}" for verdict in VERDICTS))
    for side, count in counts.items():
        print(f"{side:8}" + "".join(f"{count[verdict]:>9}" for verdict in VERDICTS))
    passing = [p for p in pairs.values() if p["plain"]["verdict"] == "passed"]
    alike = sum(p["inside"]["verdict"] == "passed" for p in passing)
    share = alike / max(1, len(passing))
    print(f"{alike} of the {len(passing)} modules that pass plainly pass inside: {share:.1%}")
    if unexplained:
        print(f"{len(unexplained)} differ without a reason in {DIFFERENCES.name}: {' '.join(unexplained)}")
    few = everything and share < MUST_PASS  # of a few modules the share says nothing
    if few:
        print(f"less than {MUST_PASS:.0%} pass inside")
    return 1 if unexplained or few else 0


if __name__ == "__main__":
    main()
