"""Import the packages that people ask an assistant for, and let each do a real thing inside the sandbox.

Each program in packages/ ends with what it prints: `# -> line`. It runs under the product's default limits, which is
what a user meets first, and beside it as a plain process, which shows what is the package's own doing: its time and
what it says on stderr. One wrong line inside and the exit status is 1.
"""

import argparse
import importlib.metadata
import pathlib
import sys
import tempfile

from sides import FidelityError, Inside, Limits, Plain, resolve

HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = {path.stem: path for path in sorted((HERE / "packages").glob("*.py"))}
SECONDS = 60


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packages", nargs="*", help="such as numpy; all when there are none")
    parser.add_argument("--caddy", default=HERE.parents[1] / "bin" / "caddy", type=pathlib.Path)
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has the packages")
    args = parser.parse_args()
    if unknown := set(args.packages) - set(PROGRAMS):
        parser.error(f"no program for {', '.join(sorted(unknown))}; there are {', '.join(PROGRAMS)}")
    try:
        sys.exit(sweep(args))
    except FidelityError as e:
        sys.exit(f"sweep: {e}")


def sweep(args):
    python, _, prefixes = resolve(args.python)
    # The product's defaults: pool/config.go.
    plain = Plain(python, prefixes, Limits(memory_mib=512, processes=64, open_files=256, scratch_mib=256))
    failures = []
    print(f"{'package':14}{'version':>10}{'plain':>8}{'inside':>8}  outcome")
    with tempfile.TemporaryDirectory() as folder, Inside(args.caddy, python, pathlib.Path(folder)) as inside:
        for name in args.packages or PROGRAMS:
            code = PROGRAMS[name].read_text()
            expected = [line[5:] for line in code.splitlines() if line.startswith("# -> ")]
            beside, outcome = plain.run(code, SECONDS), inside.run(code, SECONDS)
            wrong = fault(outcome, expected)
            text = wrong or "ok"
            if wrong and fault(beside, expected):
                text += ", and plainly too"
            version = importlib.metadata.version(name)
            print(f"{name:14}{version:>10}{beside.seconds:>6.1f} s{outcome.seconds:>6.1f} s  {text}", flush=True)
            # Beside a right answer too: a warning that a plain process does not get.
            for line in [line for line in outcome.stderr.splitlines() if line not in beside.stderr.splitlines()][-15:]:
                print(f"    | {line}")
            if wrong:
                failures.append(name)
    if failures:
        print(f"{len(failures)} failed: {' '.join(failures)}")
    return 1 if failures else 0


def fault(outcome, expected):
    """Return what is wrong with an outcome, or None."""
    printed = outcome.stdout.splitlines()
    if outcome.status == "ok" and printed == expected:
        return None
    lines = [f"{outcome.status}, exit code {outcome.exit_code}"]
    for number in range(max(len(printed), len(expected))):
        got, want = (side[number] if number < len(side) else None for side in (printed, expected))
        if got != want:
            lines.append(f"    line {number + 1} is {got!r}, not {want!r}")
            break
    return "\n".join(lines)


if __name__ == "__main__":
    main()
