"""Runs the cell that comes on standard input as __main__, and shows what a notebook would: the value of the last
expression, figures, the exception. What it shows goes to standard output as records,

    0x1E, mark, and for each field a space and base64, then 0x1E

which jupyteroutput.go takes out again. The cell could write such records, too; they would be its own output, like all that
it prints. This file runs beside the cell's names and imports little, since each run pays for it: `mark` and `limit` are given."""
import _ast
import builtins
import os
import sys
from binascii import a2b_base64, b2a_base64

FILE = "main.py"
ONLY_AST, AWAIT, COROUTINE = 0x400, 0x2000, 0x80   # of ast and inspect
# Clients such as Open WebUI take messages of 1 MiB at most, and base64 makes a third more of an image.
LARGE = 700_000
RICH = {"image/png": "_repr_png_", "image/jpeg": "_repr_jpeg_", "image/svg+xml": "_repr_svg_", "text/html": "_repr_html_",
        "text/markdown": "_repr_markdown_", "text/latex": "_repr_latex_"}

main, modules, stdout = sys.modules["__main__"], sys.modules, sys.stdout
flush_to, pid, getpid = os.write, os.getpid(), os.getpid
loop = None


def emit(*fields):
    if getpid() != pid:
        return   # a child that has left the cell at its end
    for stream in (sys.stdout, stdout):
        try:
            stream.flush()
        except Exception:
            pass
    rest = b" ".join([b"\x1e" + mark, *(b2a_base64(f if isinstance(f, bytes) else f.encode("utf-8", "backslashreplace"), newline=False)
                                        for f in fields)]) + b"\x1e"
    while rest:
        rest = rest[flush_to(1, rest):]


def cut(text):
    if len(text) <= limit:
        return text
    return f"{text[:limit // 2]}\n[... {len(text) - limit} characters left out ...]\n{text[limit // 2 - limit:]}"


def bundle(value):
    """What there is to show of a value: MIME types, each with its data."""
    yield "text/plain"
    yield cut(repr(value))
    found = {}
    if is_figure(value):
        found["image/png"] = picture(value)
    elif not isinstance(value, type):
        offers = dict(RICH)
        if callable(getattr(type(value), "_repr_mimebundle_", None)):
            offers = {None: "_repr_mimebundle_", **offers}
        for mime, method in offers.items():
            if mime in found or mime == "image/jpeg" and "image/png" in found or not callable(getattr(type(value), method, None)):
                continue
            try:
                data = getattr(value, method)()
            except Exception:
                continue   # there are others
            if isinstance(data, tuple):
                data = data[0]   # metadata comes second
            if mime is not None:
                found[mime] = data
            elif isinstance(data, dict):
                found.update((m, d) for m, d in data.items() if m in RICH)
    room = LARGE
    for mime in RICH:
        data = found.get(mime)
        if isinstance(data, str) and mime in ("image/png", "image/jpeg"):
            data = a2b_base64(data)
        if not data or not isinstance(data, (str, bytes)):
            continue
        if len(data) > room:
            print(f"[{mime} of {len(data)} bytes is left out: at most {LARGE} are shown]", file=sys.stderr)
            continue
        room -= len(data)
        yield mime
        yield data


def is_figure(value):
    figure = modules.get("matplotlib.figure")
    return figure is not None and isinstance(value, figure.Figure)


def picture(figure):
    from io import BytesIO

    for scale in (1, 0.5, 0.25):   # a smaller picture is more use than none
        out = BytesIO()
        figure.savefig(out, format="png", bbox_inches="tight", dpi=figure.dpi * scale)
        if out.tell() <= LARGE:
            break
    return out.getvalue()


def display(*values, **_):
    """Show values, as in a notebook."""
    for value in values:
        emit("display", *bundle(value))
        shown(value)


def shown(value):
    if is_figure(value) and "matplotlib.pyplot" in modules:
        modules["matplotlib.pyplot"].close(value)   # else it would be shown again at the end


def show(*_, **__):
    """matplotlib.pyplot.show, which with Agg would do nothing."""
    plt = modules.get("matplotlib.pyplot")
    for number in plt.get_fignums() if plt else ():
        display(plt.figure(number))


class OnPyplot:
    """Puts `show` into pyplot when the cell imports it."""

    def find_spec(self, name, path=None, target=None):
        if name != "matplotlib.pyplot":
            return None
        from importlib.util import find_spec

        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                module.show = show

            spec.loader.exec_module = exec_module
        return spec


def refuse_input(prompt=""):
    raise EOFError("input() is not supported here, since nobody can answer: write the value into the code")


def run(code):
    global loop
    value = eval(code, main.__dict__)
    if code.co_flags & COROUTINE:   # await at top level
        if loop is None:
            import asyncio

            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
        value = loop.run_until_complete(value)
    return value


def parse(source):
    try:
        return compile(source.decode(), FILE, "exec", ONLY_AST | AWAIT, True)
    except SyntaxError as e:
        word = (e.text or "").lstrip()
        if word.startswith("%matplotlib"):   # what it asks for is so anyway
            return parse(b"\n".join(b"" if line.lstrip().startswith(b"%matplotlib") else line for line in source.split(b"\n")))
        if word[:1] in ("%", "!"):
            e.msg += " (this is no IPython: lines that begin with % or ! do not work)"
        raise


def run_cell(source):
    source = source.removeprefix(b"\xef\xbb\xbf")
    with open(main.__file__, "wb") as file:   # where tracebacks and inspect look
        file.write(source)
    tree = parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], _ast.Expr) else None
    code = compile(tree, FILE, "exec", AWAIT, True)
    if last is None:
        run(code)
        return
    final = compile(_ast.Expression(last.value), FILE, "eval", AWAIT, True)
    hidden = b"".join(source.splitlines()[last.end_lineno - 1:])[last.end_col_offset:].lstrip()[:1] == b";"
    run(code)
    value = run(final)
    if value is not None and not hidden and getpid() == pid:
        emit("result", *bundle(value))
        shown(value)


def report(e):
    from traceback import TracebackException

    trace = TracebackException(type(e), e, e.__traceback__)
    trace.stack[:] = [frame for frame in trace.stack if frame.filename != __file__]
    try:
        words = str(e)
    except Exception:
        words = "<exception str() failed>"
    emit("error", type(e).__name__, cut(words), cut("".join(trace.format()).rstrip("\n")))


def drive():
    status = 0
    source = sys.stdin.buffer.read()
    os.environ.setdefault("MPLBACKEND", "Agg")
    builtins.display, builtins.input = display, refuse_input
    if "matplotlib.pyplot" in modules:
        modules["matplotlib.pyplot"].show = show
    else:
        sys.meta_path.insert(0, OnPyplot())
    try:
        run_cell(source)
    except BaseException as e:
        if getpid() != pid:
            raise
        if not isinstance(e, SystemExit):
            status = 130 if isinstance(e, KeyboardInterrupt) else 1
        elif e.code is None or isinstance(e.code, int):
            status = e.code
        else:
            status = 1
        if status:
            report(e)
    try:
        show()
    except Exception as e:
        status = status or 1
        report(e)
    if status:
        raise SystemExit(status)


drive()
