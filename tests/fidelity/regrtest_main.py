# The program of both sides: sent to /execute, and run as `python main.py`. MODULE, SECONDS and TOKEN are set above it.
#
# The tests run in this very process, which inside is a fork of the template: that is the interpreter that user code
# gets, not a fresh one that it could start. Nothing is imported ahead that a plain program would not have, and no name
# is left in __main__ that a test of completion would find.
def _watch(failed, skipped):
    """Note what becomes of each test. regrtest's own report (--junit-xml) leaves subtests out, by which alone a module may
    fail, and falls over an error that a test has outside of its method. Suites that tests run are noted too, on both
    sides alike."""
    from unittest import TestResult

    def note(method, into, text):
        original = getattr(TestResult, method)

        def noting(self, test, *rest):
            try:
                if rest[-1:] != (None,):  # a subtest that passed has no error
                    into[test.id()] = text(rest[-1])
            except Exception as e:
                into[str(test)] = repr(e)
            return original(self, test, *rest)

        setattr(TestResult, method, noting)

    def traceback_of(error):
        import traceback

        return "".join(traceback.format_exception(*error))[-1200:]

    for method in ("addError", "addFailure", "addSubTest"):
        note(method, failed, traceback_of)
    note("addSkip", skipped, lambda reason: str(reason)[-200:])


def _run():
    import os
    import sys

    # -u none: no network, no window, no large files, no minutes of CPU. --timeout: whoever hangs shows where.
    sys.argv[1:] = ["-u", "none", "-v", "--timeout", str(SECONDS), MODULE]
    failed, skipped = {}, {}
    stdout = os.dup(1)
    status = None
    try:
        from test.libregrtest.main import main

        _watch(failed, skipped)
        main()
    except SystemExit as e:
        status = e.code
    sys.stdout.flush()
    import json

    line = json.dumps({"status": status, "failed": failed, "skipped": skipped})
    os.write(stdout, f"\n{TOKEN} {line}\n".encode())


if __name__ == "__main__":
    _run()
