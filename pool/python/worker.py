"""A worker: confined, reseeded and warmed before it is parked. It takes one request, runs its code as __main__, and ends as
`python main.py` would. Once it has the code it sends nothing more: Go learns what user code did from the lane and the pipes.

Using an object changes its reference count, and so copies its page in a fork. Hence names are looked up once, at import; the module
that becomes __main__ is made in the template; and a single function leads to user code."""
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
    import traceback  # noqa: F401  since 3.13 the interpreter prints uncaught exceptions with it

MAIN_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
SMALL_READ, MAX_READ = 1 << 11, 1 << 16   # bytes: of the first read, which holds most programs, and of those after a full one
REHEARSAL = b"first_name = print(end='')"   # the interpreter keeps a table of all names, to which a program's first own name is added
set_dumpable, PR_SET_DUMPABLE = confine.set_dumpable, confine.PR_SET_DUMPABLE
SIGINT, on_interrupt, set_handler = int(_signal.SIGINT), _signal.default_int_handler, _signal.signal
enable_collector, collect, count_threads = gc.enable, gc.collect, _thread._count
modules, run_exit_functions = sys.modules, atexit._run_exitfuncs
leave_memory_holder, REFUSED = memoryholder.leave, memoryholder.REFUSED
plain_stream = type(sys.stdout)   # its flush is a C function
main = type(sys)("__main__")
main.__builtins__ = builtins


def serve(channel, scratch, domain, filter, processes, parked, here):
    try:
        # The code is in a file too, as for `python main.py`: tracebacks show its lines, inspect and multiprocessing's spawn read it.
        source_file = open_file("main.py", MAIN_FLAGS, 0o644)
        set_dumpable(PR_SET_DUMPABLE, 1)
        if domain is not None or filter is not None or processes:   # never with namespaces
            confine.enter_worker(domain, filter, scratch, processes)
        if source_file != 4:
            dup2(source_file, 4, False)
        closerange(5, 65536)
        setpgrp()   # a process group without the lane: a program may signal its own group
        set_handler(SIGINT, on_interrupt)
        if random_states:
            _reseed()
        if parked:
            rehearse(here)
            leave_memory_holder(REFUSED)
        enable_collector()
        write(channel, b"ready\n")
        word, _, source = receive(channel)
    except BaseException as e:
        try:
            write(channel, wire.failure(*confine.describe(e)) + b"\n")
        finally:
            _exit(1)
    if not word:         # "run", or "run alone" where processors are free
        _exit(0)         # retired before a request came
    close(channel)       # user code runs in this process, and must not write to the channel
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
    status = _finish(status, here, main.__dict__, True)
    if word == b"run alone":
        leave_memory_holder()   # the answer then does not wait until the kernel has freed this memory
    _exit(status)


def receive(channel):
    request, size = b"", SMALL_READ
    while part := read(channel, size):
        request += part
        if len(part) == size:
            size = MAX_READ
    return request.partition(b"\n")


random_states = ()


def _reseed():
    """Give this worker random state of its own. Python reseeds `random` after a fork, but not the modules in random_states."""
    for module in random_states:
        if module.__name__ == "numpy.random":
            module.seed()
        elif module.__name__ == "ssl":
            module.RAND_add(os.urandom(32), 32.0)
        else:   # multiprocessing.process
            module.current_process().authkey = os.urandom(32)


def rehearse(here, scope=None):
    """Run the smallest program as serve runs one, so that the pages to which every program's run writes are copied before a request
    comes. It copies none that a program would not copy anyway, so the work in all stays the same."""
    if scope is None:
        scope = {"__name__": "__main__", "__builtins__": builtins}
    main.__dict__["__file__"] = main.__dict__.get("__file__")   # writes to the dictionary in which the program's names will be
    program = compile(REHEARSAL.decode(), "main.py", "exec", 0, True)
    here.value = None
    exec(program, scope)
    _finish(0, here, scope, False)


def exercise():
    """Call what every worker calls, without lasting effect."""
    here = frames.place()
    rehearse(here)
    rehearse(here, main.__dict__)
    set_dumpable(PR_SET_DUMPABLE, 1)
    leave_memory_holder(REFUSED)
    try:
        setpgrp()
    except OSError:
        pass   # a template leads a session, and may not change its group
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
    receive(here)
    close(here)
    closerange(65535, 65536)


def warm_up(scratch):
    """In the template: run what every worker will run, until the interpreter changes nothing more. The interpreter specializes
    bytecode (PEP 659) and fills caches of types and methods as it runs, and each such write in a worker would copy a page."""
    global random_states
    random_states = [sys.modules[n] for n in ("numpy.random", "ssl", "multiprocessing.process") if n in sys.modules]
    for _ in range(32):
        exercise()
    main.__dict__.clear()
    main.__dict__.update(type(sys)("__main__").__dict__, __builtins__=builtins)
    place_main(scratch)
    sys.modules["__main__"] = main


def place_main(scratch):
    """Set __file__ of __main__. scratch is the scratch directory as programs see it."""
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
    """Print an uncaught exception as the interpreter does, without the sandbox's frames, and return the exit status. Here and below,
    functions that may be the program's are called from C (partial) with the frame pointer cleared, so that they have no frame below
    them."""
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


def _finish(status, here, scope, exits):
    """Do what a program can observe of Py_FinalizeEx, and return the exit status. The rest of it would only write to every page of the
    preloaded modules. Without exits, no function that waits for the end of a program is called."""
    try:
        if "threading" in modules and exits:
            call = partial(modules["threading"]._shutdown)
            here.value = None
            call()
    except BaseException as e:
        _report(e, here)
    try:
        here.value = None
        if exits:
            run_exit_functions()
    except BaseException as e:
        _report(e, here)
    try:
        _clear(scope, here)
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
            status = status or 120   # the interpreter's status when it cannot flush
    return status


def _clear(scope, here):
    """Clear the program's globals, so that finalizers run: private names first, then the others, as the interpreter does."""
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
