"""A worker: confined, reseeded and warmed before it is parked; it takes one request, runs it as __main__, and ends
as `python main.py` would. It says nothing after it has the code: what user code did, the lane and the pipes tell.

Each object that is used in a fork is counted, which writes to it and so copies its page. So names are looked up here
once, the module that becomes __main__ is made ahead, and the way to user code is one function."""
import _signal  # the C module: signal.signal looks each number up among enums
import _thread
import atexit
import builtins
import gc
import os
import sys
from _functools import partial
from os import _exit, close, closerange, dup2, open as open_file, pipe, read, setpgrp, write

import _sandbox_confine as confine
import _sandbox_frames as frames
import _sandbox_memoryholder as memoryholder
import _sandbox_wire as wire

if sys.version_info >= (3, 13):
    import traceback  # noqa: F401  from there on the interpreter shows uncaught exceptions with it

MAIN_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
SMALL_READ, MAX_READ = 1 << 11, 1 << 16   # what most programs fit into, and what others are read by
SIGINT, on_interrupt, set_handler = int(_signal.SIGINT), _signal.default_int_handler, _signal.signal
enable_collector, collect, count_threads = gc.enable, gc.collect, _thread._count
modules, run_exit_functions = sys.modules, atexit._run_exitfuncs
leave_memory_holder, touch_memory_holder = memoryholder.leave, memoryholder.touch
plain_stream = type(sys.stdout)   # its flush is C's
main = type(sys)("__main__")
main.__builtins__ = builtins


def serve(channel, scratch, domain, filter, processes, parked, here):
    try:
        # A file, as for `python main.py`: tracebacks show its lines, inspect and multiprocessing's spawn find it.
        source_file = open_file("main.py", MAIN_FLAGS, 0o644)
        confine.enter_worker(domain, filter, scratch, processes)
        if source_file != 4:
            dup2(source_file, 4, False)
        closerange(5, 65536)
        setpgrp()   # what it signals as a group, and what is sent to it as one, is not the lane
        set_handler(SIGINT, on_interrupt)
        if random_states:
            _reseed()
        if parked:
            rehearse()
            touch_memory_holder()
        enable_collector()
        write(channel, b"ready\n")
        request = receive(channel)
    except BaseException as e:
        try:
            write(channel, wire.failure(*confine.describe(e)) + b"\n")
        finally:
            _exit(1)
    word, _, source = request.partition(b"\n")   # "run", or "run alone" where processors are free
    if not word:
        _exit(0)         # retired before a request came
    close(channel)       # user code shares this process: nothing is said from here on
    status = 0
    try:
        write(4, source)
        close(4)
        program = compile(source.decode(), "main.py", "exec", 0, True)
        here.value = None
        exec(program, main.__dict__)
    except SystemExit as e:
        status = _exit_code(e)
    except BaseException as e:
        status = _report(e, here)
    status = _finish(status, here)
    if word == b"run alone":
        leave_memory_holder()   # whoever waits for the answer does not wait for the end of this memory
    _exit(status)


def receive(channel):
    request, size = b"", SMALL_READ
    while part := read(channel, size):
        request += part
        if len(part) == size:
            size = MAX_READ
    return request


random_states = ()


def _reseed():
    """Give this worker random state of its own. Python reseeds `random` itself after a fork; these it does not."""
    for module in random_states:
        if module.__name__ == "numpy.random":
            module.seed()
        elif module.__name__ == "ssl":
            module.RAND_add(os.urandom(32), 32.0)
        else:   # multiprocessing.process
            module.current_process().authkey = os.urandom(32)


def rehearse(scope=None):
    """Touch what the first lines of a program touch, so that the pages are this process's own before a request comes.
    It does no more than the smallest program does, so that it costs nothing over all."""
    if scope is None:
        scope = {"__name__": "__main__", "__builtins__": builtins}
    exec(compile("print(end='')", "main.py", "exec", 0, True), scope)
    _clear(scope)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


def exercise():
    """Run what every worker runs, in ways that change nothing."""
    rehearse()
    rehearse(main.__dict__)
    confine.warm_up()
    memoryholder.touch()
    here = frames.place()
    here.value = here.value
    try:
        setpgrp()
    except OSError:
        pass   # a template leads a session, and may not
    set_handler(SIGINT, on_interrupt)
    set_handler(SIGINT, _signal.SIG_DFL)
    if random_states:
        _reseed()
    file = open_file("/dev/null", MAIN_FLAGS, 0o644)
    write(file, b"source")
    close(file)
    here, there = pipe()
    write(there, b"run alone\n")
    close(there)
    receive(here).partition(b"\n")
    close(here)
    closerange(65535, 65536)


def warm_up(scratch):
    """In the template: run what every worker will run until the interpreter changes nothing more. It specializes bytecode and
    fills caches of types and methods as it runs (PEP 659), and each such write in a worker would copy a page."""
    global random_states
    random_states = [sys.modules[n] for n in ("numpy.random", "ssl", "multiprocessing.process") if n in sys.modules]
    for _ in range(32):
        exercise()
    main.__dict__.clear()
    main.__dict__.update(type(sys)("__main__").__dict__, __builtins__=builtins)
    place_main(scratch)
    sys.modules["__main__"] = main


def place_main(scratch):
    """Set what a program finds of where it lies."""
    main.__file__ = scratch + "/main.py"


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


def _report(e, here):
    """Show an uncaught exception as the interpreter does, without the frames below user code. What is the program's is called
    from C, with no frame below it, here and in what follows."""
    trace = e.__traceback__ and e.__traceback__.tb_next
    e.__traceback__ = trace
    status = 130 if isinstance(e, KeyboardInterrupt) else 1
    try:
        sys.last_type, sys.last_value, sys.last_traceback = type(e), e, trace
        call = partial(sys.excepthook, type(e), e, trace)
        here.value = None
        call()
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


def _finish(status, here):
    """What Py_FinalizeEx does that a program can see; the rest of it would only touch every page of the preload."""
    try:
        if "threading" in modules:
            call = partial(modules["threading"]._shutdown)
            here.value = None
            call()
    except BaseException as e:
        _report(e, here)
    try:
        here.value = None
        run_exit_functions()
    except BaseException as e:
        _report(e, here)
    try:
        _clear(main.__dict__, here)
    except BaseException as e:
        _report(e, here)
    for stream in (sys.stdout, sys.stderr):
        try:
            here.value = None
            if stream is not None and not stream.closed:
                if type(stream) is plain_stream:
                    stream.flush()
                else:
                    partial(stream.flush)()
        except BaseException:
            status = status or 120   # as the interpreter says when it cannot flush
    return status


def _clear(scope, here=frames.Nowhere):
    """Let the program's own objects end, so that their finalizers run: private names first, then the others."""
    if count_threads():
        return   # daemon threads still run, and would see their globals vanish
    here.value = None
    for name in list(scope):
        if name[:1] == "_" and name[:2] != "__":
            scope[name] = None
    for name in list(scope):
        if name != "__builtins__":
            scope[name] = None
    collect()
