"""The program of a kernel's process. It runs the cells that come on standard input in one __main__, and shows what a notebook
would: the value of the last expression, figures, the exception. A cell is a line, "MARK COUNT BYTES", followed by that many
bytes of source. What the cell shows goes to standard output as records,

    0x1E, MARK, and for each field a space and base64, then 0x1D

which stream.go separates from the text that the cell prints. The record "begin" means that the cell can be interrupted from
now on. The record "end" comes last, and on standard error as well, since nothing orders the two streams. Code in a cell can
write such records, too: they count as output of that cell, like all that it prints.

display.py stands before this file, and the two run as one module, in a namespace apart from the cells' __main__. Both import
little, since each kernel pays for it. Go sets `limit`, the characters of a text that are sent before its middle is cut out."""
import _ast
import _signal
import _thread
import builtins
import os
import sys
from binascii import b2a_base64

ONLY_AST, AWAIT, COROUTINE = 0x400, 0x2000, 0x80   # ast.PyCF_ONLY_AST, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, inspect.CO_COROUTINE
MOST_SOURCES, MOST_SOURCE = 500, 2_000_000   # of how many cells the source is kept for tracebacks, and its characters in all
SIGINT = int(_signal.SIGINT)

main, modules, stdout, main_file = sys.modules["__main__"], sys.modules, sys.stdout, sys.modules["__main__"].__file__
# Bound here once, so that a cell which replaces one of these functions does not change the driver.
read, write, dup2, fstat, pipe, close, getpid, _exit = os.read, os.write, os.dup2, os.fstat, os.pipe, os.close, os.getpid, os._exit
set_handler, pid, sending = _signal.signal, os.getpid(), _thread.allocate_lock()   # threads of cells may show values, too
mark = b""
armed = False   # on_interrupt acts; else it ignores the signal
cancelled = False   # on_interrupt has cancelled what the cell awaits, instead of raising KeyboardInterrupt
loop = None     # the asyncio event loop of cells, None before a cell has used await at top level
sources = {}    # the source of cells by the name of their file


def on_interrupt(_, frame):
    """The handler of SIGINT. It interrupts what attempt runs, once only: when the cell goes on, Go ends the process soon, so the
    code here need not expect a second interrupt."""
    global armed, cancelled
    if armed:
        armed = False
        awaited = awaited_in(frame)
        if awaited is None:
            raise KeyboardInterrupt
        cancelled = True
        awaited.get_loop().call_soon_threadsafe(awaited.cancel)


def awaited_in(frame):
    """Return the future that run_until_complete waits for, when the interrupted code is the event loop's own: an exception raised
    there could lose a step of a task, which would then never end. None when other code is interrupted."""
    ours = [modules[n].__file__.removesuffix("__init__.py") for n in ("asyncio", "selectors") if n in modules]
    if frame is None or not frame.f_code.co_filename.startswith(tuple(ours)):
        return None
    while frame is not None and frame.f_code.co_name != "run_until_complete":
        frame = frame.f_back
    return frame and frame.f_locals.get("future")


def attempt(do, *arguments):
    """Call do. Return its value and None, or None and its exception. Interrupts are taken while it runs and at no other time."""
    global armed
    try:
        try:
            armed = True
            return do(*arguments), None
        finally:
            armed = False
    except BaseException as e:
        return None, e


def claim():
    """Copy descriptors 0, 1 and 2 to high numbers for the driver, where cells that close descriptors seldom hit them, and give
    cells an empty standard input. Return the copies."""
    top = min(os.sysconf("SC_OPEN_MAX"), 256)
    own = (top - 3, top - 2, top - 1)
    for fd in (0, 1, 2):
        dup2(fd, own[fd], False)
    empty_stdin()
    return own


def empty_stdin():
    end, other = pipe()
    close(other)
    if end:
        dup2(end, 0)
        close(end)
    else:
        os.set_inheritable(0, True)


def give_up():
    try:
        write(2, b"[the cell has closed the descriptors through which its kernel speaks]\n")
    except OSError:
        pass
    _exit(1)


def more():
    try:
        part = read(requests, 1 << 16)
    except OSError:
        give_up()
    if not part:
        _exit(0)   # Go has closed its end: the kernel has ended
    return part


def receive():
    """Wait for the next cell and return its mark, count and source. Go sends a cell only after the last one has ended, so nothing
    of another cell follows."""
    have = b""
    while b"\n" not in have:
        have += more()
    head, _, text = have.partition(b"\n")
    name, number, size = head.split()
    parts, left = [text], int(size) - len(text)
    while left > 0:
        parts.append(more())
        left -= len(parts[-1])
    return name, number.decode(), b"".join(parts)


def listen():
    """Set the handler of SIGINT, since a cell may have set another one. An interrupt may come meanwhile, so try until it is set."""
    while attempt(set_handler, SIGINT, on_interrupt)[1] is not None:
        pass


def record(*fields):
    return b" ".join([b"\x1e" + mark, *(b2a_base64(f if isinstance(f, bytes) else str.encode(f, "utf-8", "backslashreplace"), newline=False)
                                       for f in fields)]) + b"\x1d"


def send(fd, data):
    try:
        with sending:
            while data:
                data = data[write(fd, data):]
    except OSError:
        give_up()


def flush():
    for stream in (sys.stdout, stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass


def emit(*fields):
    if getpid() == pid:   # not in a child that the cell has forked
        flush()
        send(out, record(*fields))


class OnImport:
    """A finder for sys.meta_path that calls the function in `afterwards` when a cell has imported its module."""

    def find_spec(self, name, path=None, target=None):
        follow = afterwards.pop(name, None)
        if follow is None:
            return None
        spec = None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                break
        if spec is None or isinstance(spec.loader, type) or not hasattr(spec.loader, "exec_module"):
            afterwards[name] = follow
            return spec
        load = spec.loader.exec_module

        def exec_module(module):
            try:
                load(module)
            except BaseException:
                afterwards[name] = follow   # the import may be tried again
                raise
            follow(module)

        spec.loader.exec_module = exec_module
        return spec


def add_show(pyplot):
    pyplot.show = show


def add_sources(linecache):
    """Let tracebacks and inspect find the source of cells, which lies in no file."""
    for name, source in sources.items():
        if name not in linecache.cache:
            linecache.cache[name] = (len(source), None, source.splitlines(True), name)


afterwards = {"matplotlib.pyplot": add_show, "linecache": add_sources}


def keep(count, source):
    """Keep the source of a cell and return the name of its file."""
    name, number = f"<cell {count}>", 1
    while name in sources:   # cells that are not counted have the count of the cell before
        number += 1
        name = f"<cell {count}, {number}>"
    sources[name] = source
    cache = getattr(modules.get("linecache"), "cache", {})
    while len(sources) > 1 and (len(sources) > MOST_SOURCES or sum(map(len, sources.values())) > MOST_SOURCE):
        oldest = next(iter(sources))
        del sources[oldest]
        cache.pop(oldest, None)
    if "linecache" in modules:
        add_sources(modules["linecache"])
    return name


def refuse_input(prompt=""):
    raise EOFError("input() is not supported here, since nobody can answer: write the value into the code")


def run(code):
    global loop
    value = eval(code, main.__dict__)
    if code.co_flags & COROUTINE:   # await at top level
        import asyncio

        if loop is None or loop.is_closed():
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
        task = loop.create_task(value)
        try:
            value = loop.run_until_complete(task)
        except BaseException:
            if not task.done():   # interrupted: it would go on in the next cell that awaits
                task.cancel()
                loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
            raise
    return value


def parse(source, file):
    try:
        return compile(source.decode(), file, "exec", ONLY_AST | AWAIT, True)
    except SyntaxError as e:
        word = (e.text or "").lstrip()
        if word.startswith("%matplotlib"):   # ignore it: figures are shown as it asks anyway
            return parse(b"\n".join(b"" if line.lstrip().startswith(b"%matplotlib") else line for line in source.split(b"\n")), file)
        if word[:1] in ("%", "!"):
            e.msg += " (this is no IPython: lines that begin with % or ! do not work)"
        raise


def run_cell(source, count):
    send(out, record("begin"))
    source = source.removeprefix(b"\xef\xbb\xbf")
    try:
        with open(main_file, "wb") as script:   # multiprocessing's spawn runs this file
            script.write(source)
    except OSError:
        pass   # a cell has made it read-only or filled the disk; only spawn needs it
    file = keep(count, source.decode())
    main.__dict__.pop("__warningregistry__", None)   # a warning is shown in each cell, not once
    try:
        tree = parse(source, file)
    except SyntaxError:
        del sources[file]   # nothing of it runs, and Go may send other source with the same count
        raise
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], _ast.Expr) else None
    code = compile(tree, file, "exec", AWAIT, True)
    if last is None:
        run(code)
        return
    final = compile(_ast.Expression(last.value), file, "eval", AWAIT, True)
    hidden = b"".join(source.splitlines()[last.end_lineno - 1:])[last.end_col_offset:].lstrip()[:1] == b";"
    run(code)
    value = run(final)
    if value is not None and getpid() == pid:
        builtins._ = value
        if not hidden:
            emit("result", *bundle(value))
            shown(value)


def explain(e):
    """Return the name, the message and the traceback of an exception; None for a SystemExit that means success."""
    if isinstance(e, SystemExit) and (e.code is None or isinstance(e.code, int) and e.code == 0):
        return None
    import linecache
    from traceback import TracebackException

    add_sources(linecache)
    trace = TracebackException(type(e), e, e.__traceback__)
    trace.stack[:] = [frame for frame in trace.stack if frame.filename != __file__]
    try:
        words = str(e)
    except Exception:
        words = "<exception str() failed>"
    return type(e).__name__, cut(words), cut("".join(trace.format()).rstrip("\n"))


def describe(e):
    words = explain(e)
    return words and record("error", *words)


def leave(e):
    """End a child that the cell has forked, and which has come to the end of the cell or to an exception that it did not catch."""
    if e is None or isinstance(e, SystemExit):
        raise e or SystemExit
    sys.stderr.write(explain(e)[2] + "\n")
    raise SystemExit(1)


def report(e):
    text, worse = attempt(describe, e)
    if isinstance(worse, KeyboardInterrupt):
        text = record("error", "KeyboardInterrupt", "", "KeyboardInterrupt")
    elif worse is not None:
        text = record("error", "Exception", "it cannot be shown", "the exception cannot be shown: doing so raised another")
    if text is not None:
        attempt(flush)
        send(out, text)
    return text is not None


def mend():
    """Open the standard streams again that the cell has closed, so that the next cell can print."""
    for fd, own, name in ((0, None, "stdin"), (1, out, "stdout"), (2, err, "stderr")):
        try:
            fstat(fd)
        except OSError:
            if own is None:
                empty_stdin()
            else:
                dup2(own, fd)
            send(err, b"[the cell has closed descriptor %d, %s, which is open again]\n" % (fd, name.encode()))
        stream = getattr(sys, name)
        if getattr(stream, "closed", True):
            stream = open(fd, "r" if fd == 0 else "w", 1, "utf-8", "strict" if fd < 2 else "backslashreplace", closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def serve_cell(source, count):
    global cancelled
    cancelled = False
    _, failure = attempt(run_cell, source, count)
    if cancelled and type(failure).__name__ == "CancelledError":
        failure = KeyboardInterrupt().with_traceback(failure.__traceback__)
    if getpid() != pid:
        leave(failure)
    listen()
    failed = failure is not None and report(failure)
    _, failure = attempt(show)
    if failure is not None and not failed:
        report(failure)
    attempt(flush)
    attempt(mend)
    send(out, record("end"))
    send(err, record("end"))


requests, out, err = claim()
os.environ.setdefault("MPLBACKEND", "Agg")
builtins.display, builtins.input = display, refuse_input
listen()
if "matplotlib.pyplot" in modules:
    add_show(modules["matplotlib.pyplot"])
sys.meta_path.insert(0, OnImport())
while True:
    mark, count, source = receive()
    serve_cell(source, count)
    del source
