"""Shows values as a notebook does: as text, images or HTML. This runs in one module with driver.py, whose names it uses."""
import sys
from binascii import a2b_base64

# Clients such as Open WebUI take messages of 1 MiB at most, and base64 makes a third more of an image.
LARGE = 700_000
RICH = {"image/png": "_repr_png_", "image/jpeg": "_repr_jpeg_", "image/svg+xml": "_repr_svg_", "text/html": "_repr_html_",
        "text/markdown": "_repr_markdown_", "text/latex": "_repr_latex_"}
modules = sys.modules


def cut(text):
    if len(text) <= limit:
        return text
    return f"{text[:limit // 2]}\n[... {len(text) - limit} characters left out ...]\n{text[limit // 2 - limit:]}"


def bundle(value):
    """Yield the forms in which a value can be shown: each MIME type, followed by its data."""
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
                continue   # the value may have other forms
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
        modules["matplotlib.pyplot"].close(value)   # else show would show it again at the end of the cell


def show(*_, **__):
    """Display all open figures. It replaces matplotlib.pyplot.show, which does nothing with the Agg backend."""
    plt = modules.get("matplotlib.pyplot")
    for number in plt.get_fignums() if plt else ():
        display(plt.figure(number))
