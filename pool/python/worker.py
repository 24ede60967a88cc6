"""A worker: confined, reseeded and warmed before it is parked; it takes one request, runs it as __main__, and ends
as `python main.py` would. It says nothing after it has the code: what user code did, the lane and the pipes tell."""
import _thread
import atexit
import builtins
import gc
import io
import os
import signal
import sys
import threading
import traceback  # noqa: F401  what a failing program needs is here before it fails
import types

import _sandbox_confine as confine
import _sandbox_wire as wire

MAX_LINE = 64 << 20


def serve(channel, scratch, plan):
    try:
        _prepare(plan, scratch)
        wire.write_line(channel, {"event": "ready"})
        request = wire.read_line(channel, MAX_LINE)
    except BaseException as e:
        step, error = confine.describe(e)
        try:
            wire.write_line(channel, {"event": "failed", "step": step, "error": error})
        finally:
            os._exit(1)
    if request is None:
        os._exit(0)                # retired before a request came
    os.close(channel)              # user code shares this process: nothing is said from here on
    code = request["code"]
    del request
    for name in ("wire", "confine", "lane", "worker", "template"):
        sys.modules.pop("_sandbox_" + name, None)
    os._exit(run(code, scratch))


def _prepare(plan, scratch):
    confine.enter_worker(plan)
    os.chdir(scratch)
    os.environ["HOME"] = os.environ["TMPDIR"] = scratch
    sys.path.insert(0, scratch)
    sys.argv[:] = ["main.py"]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _reseed()
    rehearse()
    gc.enable()


def _reseed():
    """Give this worker random state of its own. Python reseeds `random` itself after a fork; these it does not."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    ssl = sys.modules.get("ssl")
    if ssl is not None:
        ssl.RAND_add(os.urandom(32), 32.0)
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process.current_process().authkey = os.urandom(32)


def rehearse():
    """Touch what the first lines of a program touch, so that the pages are this process's own before a request comes."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    scope = {"__name__": "__main__", "__builtins__": builtins, "out": out}
    exec(compile("import sys\nclass C:\n    x = 1\ndef f(a):\n    return [a, {a: str(a)}]\n"
                 "for i in range(3):\n    print(f(i), f'{i}', C.x, file=out)\n", "main.py", "exec"), scope)


def run(code, scratch):
    """Run source as __main__ and return the exit code that a shell would see."""
    main = types.ModuleType("__main__")
    main.__file__ = os.path.join(scratch, "main.py")
    main.__builtins__ = builtins
    sys.modules["__main__"] = main
    status = 0
    try:
        code = code.removeprefix("\ufeff")
        # A file, as for `python main.py`: tracebacks show its lines, inspect and multiprocessing's spawn find it.
        with open("main.py", "w", encoding="utf-8", newline="") as f:
            f.write(code)
        exec(compile(code, "main.py", "exec", dont_inherit=True), main.__dict__)
    except SystemExit as e:
        status = _exit_code(e)
    except BaseException as e:
        status = _report(e)
    return _finish(main, status)


def _exit_code(e):
    value = e.code
    if value is None:
        return 0
    if isinstance(value, int):
        return value & 0xFF if -1 << 63 <= value < 1 << 63 else 255
    try:
        sys.stderr.write(f"{value}\n")
    except BaseException:
        pass
    return 1


def _report(e):
    """Show an uncaught exception as the interpreter does, without the frames below user code."""
    trace = e.__traceback__ and e.__traceback__.tb_next
    e.__traceback__ = trace
    status = 130 if isinstance(e, KeyboardInterrupt) else 1
    try:
        sys.last_type, sys.last_value, sys.last_traceback = type(e), e, trace
        sys.excepthook(type(e), e, trace)
    except SystemExit as hook:
        status = _exit_code(hook)
    except BaseException as hook:
        hook.__traceback__ = hook.__traceback__ and hook.__traceback__.tb_next
        try:
            sys.stderr.write("Error in sys.excepthook:\n")
            sys.__excepthook__(type(hook), hook, hook.__traceback__)
            sys.stderr.write("\nOriginal exception was:\n")
            sys.__excepthook__(type(e), e, trace)
        except BaseException:
            pass
    return status


def _finish(main, status):
    """What Py_FinalizeEx does that a program can see; the rest of it would only touch every page of the preload."""
    for step in (threading._shutdown, atexit._run_exitfuncs, lambda: _clear(main)):
        try:
            step()
        except BaseException as e:
            _report(e)
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BaseException:
            status = status or 120   # as the interpreter says when it cannot flush
    return status


def _clear(main):
    """Let the program's own objects end, so that their finalizers run: private names first, then the others."""
    if _thread._count():
        return   # daemon threads still run, and would see their globals vanish
    scope = main.__dict__
    for private in (True, False):
        for name in list(scope):
            if name != "__builtins__" and (not private or name.startswith("_") and not name.startswith("__")):
                scope[name] = None
    gc.collect()
