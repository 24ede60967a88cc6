# Run by the interpreter that the configuration names, with Caddy's own rights and environment: says what pip is configured
# to use on this system.
import contextlib, io, json, runpy, sys
from importlib import metadata
from importlib.machinery import PathFinder

# The distributions of the operator's interpreter, which need no install and are listed among the packages.
found = {}
for distribution in metadata.distributions():
    if distribution.metadata["Name"]:
        found.setdefault(distribution.metadata["Name"], distribution.version)
version = default = listed = wheel = ""
try:
    if PathFinder.find_spec("pip") is None:
        import ensurepip
        from pathlib import Path
        places = [Path(ensurepip.__file__).parent / "_bundled", getattr(ensurepip, "_WHEEL_PKG_DIR", None)]   # the latter is Debian's
        # An interpreter without pip may still bring the wheel that ensurepip installs, and pip runs from its wheel.
        wheel = str([file for place in places if place for file in sorted(Path(place).glob("pip-*.whl"))][-1])
        sys.path.insert(0, wheel)
    from pip import __version__ as version
    from pip._internal.models.index import PyPI
    default = PyPI.simple_url
    sys.argv[:] = ["pip", "--disable-pip-version-check", "--no-color", "config", "list"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            runpy.run_module("pip", run_name="__main__", alter_sys=True)
        except SystemExit:
            pass
    listed = out.getvalue()
except (ImportError, IndexError):
    pass
print(json.dumps({"version": version, "wheel": wheel, "default_index": default, "list": listed, "distributions": found}))
