"""A worker: confined, reseeded and warmed before it is parked; it takes one request, runs it as __main__, and ends
as `python main.py` would. It says nothing after it has the code: what user code did, the lane and the pipes tell."""
import _signal  # the C module: signal.signal looks each number up among enums
import _thread
import atexit
import builtins
import gc
import os
import sys
import types

import _sandbox_confine as confine
import _sandbox_wire as wire

if sys.version_info >= (3, 13):
    import traceback  # noqa: F401  from there on the interpreter shows uncaught exceptions with it


def serve(channel, scratch, plan):
    try:
        _prepare(plan, scratch)
        os.write(channel, b'{"event":"ready"}\n')
        request = wire.read_request(channel)
    except BaseException as e:
        step, error = confine.describe(e)
        try:
            wire.write_line(channel, {"event": "failed", "step": step, "error": error[-2000:]})
        finally:
            os._exit(1)
    if request is None:
        os._exit(0)                # retired before a request came
    os.close(channel)              # user code shares this process: nothing is said from here on
    for name in ("wire", "confine", "lane", "worker", "template"):
        sys.modules.pop("_sandbox_" + name, None)
    os._exit(run(request, scratch))


def _prepare(plan, scratch):
    confine.enter_worker(plan)
    os.chdir(scratch)
    if plan["scratch"]["own"]:
        os.environ["HOME"] = os.environ["TMPDIR"] = scratch
    sys.path.insert(0, scratch)
    sys.argv[:] = ["main.py"]
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
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
    """Touch what the first lines of a program touch, so that the pages are this process's own before a request comes.
    It does no more than the smallest program does, so that it costs nothing over all."""
    exec(compile("str(1)", "main.py", "exec", dont_inherit=True), {"__name__": "__main__", "__builtins__": builtins})


def warm_up():
    """In the template: run what every worker will run until the interpreter has settled. It specializes bytecode and
    fills caches of types and methods as it runs (PEP 659), and each such write in a worker would copy a page."""
    for _ in range(32):
        rehearse()
        main = _new_main("/tmp")
        exec(compile("print(end='')", "main.py", "exec", dont_inherit=True), main.__dict__)
        _clear(main.__dict__)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
        confine.warm_up()
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        _reseed()


def _new_main(scratch):
    main = types.ModuleType("__main__")
    main.__file__ = os.path.join(scratch, "main.py")
    main.__builtins__ = builtins
    return main


def run(source, scratch):
    """Run source as __main__ and return the exit code that a shell would see."""
    main = sys.modules["__main__"] = _new_main(scratch)
    status = 0
    try:
        # A file, as for `python main.py`: tracebacks show its lines, inspect and multiprocessing's spawn find it.
        fd = os.open("main.py", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, source)
        finally:
            os.close(fd)
        code = source.decode("utf-8").removeprefix("\ufeff")
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
    threading = sys.modules.get("threading")
    steps = [atexit._run_exitfuncs, lambda: _clear(main.__dict__)]
    if threading is not None:
        steps.insert(0, threading._shutdown)
    for step in steps:
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


def _clear(scope):
    """Let the program's own objects end, so that their finalizers run: private names first, then the others."""
    if _thread._count():
        return   # daemon threads still run, and would see their globals vanish
    for name in list(scope):
        if name[:1] == "_" and name[:2] != "__":
            scope[name] = None
    for name in list(scope):
        if name != "__builtins__":
            scope[name] = None
    gc.collect()
