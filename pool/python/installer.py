"""An installer: a short-lived process that runs one task of an install, confined like a worker. It reaches the network only through
a proxy of Caddy's. It imports from the operator's interpreter only and never from installed packages: one that could run in an
installer could choose what is installed next."""
import _signal
import os
import sys

import _socket

import _sandbox_confine as confine
import _sandbox_deadends as deadends
import _sandbox_processes as processes
import _sandbox_wire as wire


def main(control, plan):
    try:
        def ask_for_map():
            wire.send(control, b"map")
            if not wire.receive(control)[0]:
                os._exit(0)

        os.umask(0o022)   # before directories are made that processes with other ids enter
        confine.enter_template(plan, ask_for_map)
        namespaces = plan["world"] == "namespaces"
        if namespaces:
            confine.unshare(["pid"])   # the child's own pid namespace, of which it may mount /proc
        child = os.fork()
        if child:
            _guard(control, child, namespaces)
        left = confine.enter_lane(plan, plan["number"])
        task = plan["task"]
        listener = None
        if namespaces and task["network"]:
            listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
            listener.bind(("127.0.0.1", 0))
            listener.listen(64)
            task["port"] = listener.getsockname()[1]
        confine.enter_worker(left["domain"], left["filter"], task["work"], 0)
        if listener:
            wire.send(control, b"listening", listener.fileno())   # a socket of this network namespace, on which Caddy accepts
            listener.close()
        wire.send(control, b"ready")
        control.close()
    except BaseException as e:
        wire.send(control, wire.failure(*confine.describe(e)))
        os._exit(1)
    _run(task)


def _guard(control, child, namespaces):
    """Wait for the child and exit with its status. When Caddy is gone, exit at once, and end all processes below."""
    import select
    handle = os.pidfd_open(child)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    poll.register(control.fileno(), select.POLLIN)
    ready = {fd for fd, _ in poll.poll()}
    status = 1
    if handle in ready:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not namespaces:
        for pid in [child, *processes.descendants(os.getpid())]:
            try:
                os.kill(pid, processes.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
    os._exit(status if 0 <= status < 256 else 1)


def _run(task):
    """Run the task with its output in a file, and write its result to standard output as JSON."""
    import json
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    work = task["work"]
    for name in ("tmp", "home"):
        os.mkdir(f"{work}/{name}")
    os.chdir(work)
    os.environ.clear()
    os.environ.update(task["env"], HOME=f"{work}/home", TMPDIR=f"{work}/tmp")
    if task["network"]:
        os.environ["PIP_PROXY"] = f"http://127.0.0.1:{task['port']}"
    answer = os.dup(1)
    log = os.open("log", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for name in [name for name in sys.modules if name.startswith("_sandbox_")]:
        if name != __name__:
            del sys.modules[name]
    try:
        result = TASKS[task["kind"]](task)
    except BaseException as e:
        import traceback
        traceback.print_exc()
        result = {"failed": f"{type(e).__name__}: {e}"}
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    size = os.fstat(log).st_size
    result["log"] = os.pread(log, 1 << 16, max(0, size - (1 << 16))).decode("utf-8", "replace")
    with open(answer, "w") as out:
        json.dump(result, out)
    os._exit(0)


def _find_pip(task):
    if task["pip_wheel"]:
        sys.path.insert(0, task["pip_wheel"])


def _pip(arguments):
    """Run pip as `python -m pip` does, and return its status."""
    import runpy
    sys.argv[:] = ["pip", *arguments]
    try:
        runpy.run_module("pip", run_name="__main__", alter_sys=True)
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    return 0


def _fetch_metadata_only():
    """Keep pip from downloading the wheels that it has chosen, which it does even in a dry run. It still downloads those without a hash,
    to compute it. Where this pip names its internals otherwise it downloads all, which only takes longer."""
    try:
        from pip._internal.operations.prepare import RequirementPreparer
        from pip._internal.utils.direct_url_helpers import direct_url_from_link
        describe, fetch = RequirementPreparer.prepare_linked_requirement, RequirementPreparer.prepare_linked_requirements_more
    except (ImportError, AttributeError):
        return

    def prepare_one(self, req, *arguments, **options):
        if req.link:
            _links[_address(req.link.url)] = req.link
        distribution = describe(self, req, *arguments, **options)
        if getattr(req, "needs_more_preparation", False):
            req.get_dist = lambda: distribution   # else pip looks for it in the wheel
        return distribution

    def prepare(self, reqs, *arguments, **options):
        reqs = list(reqs)
        for req in reqs:
            if getattr(req, "needs_more_preparation", False) and req.link and req.link.is_wheel and req.link.hash:
                if req.download_info is None:
                    req.download_info = direct_url_from_link(req.link, req.source_dir)
                req.needs_more_preparation = False
        return fetch(self, reqs, *arguments, **options)

    RequirementPreparer.prepare_linked_requirement, RequirementPreparer.prepare_linked_requirements_more = prepare_one, prepare


_links = {}   # links that pip has prepared, by their address as the report has it


def _address(url):
    """Return a URL as pip reports it: without credentials and fragment."""
    from urllib.parse import urlsplit
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()


def resolve(task):
    """Let pip choose what to install, in view of what is installed already. Nothing is installed."""
    import json
    _find_pip(task)
    _fetch_metadata_only()
    deadends.watch(task)
    packages = task["packages"]
    if packages:
        # pip finds the installed distributions there, but no module can be imported from it, since it has no finder.
        sys.path.insert(0, packages)
        sys.path_importer_cache[packages] = None
    status = _pip(["install", "--dry-run", "--report", "report.json", "--progress-bar", "off", *task["arguments"]])
    search = {"dead_ends": deadends.found, "gave_up": deadends.state["gave_up"]}
    if status:
        return {"status": status, **search}
    with open("report.json", encoding="utf-8") as f:
        report = json.load(f)
    chosen = []
    for item in report["install"]:
        info, metadata = item["download_info"], item["metadata"]
        archive = info.get("archive_info") or {}
        hashes = archive.get("hashes") or dict([archive["hash"].split("=", 1)] if archive.get("hash") else [])
        link = _links.get(_address(info["url"]))
        if link and not link.is_file and not link.hash:
            hashes = {}   # the report's hash is that of the downloaded file, for which the index does not vouch
        chosen.append({
            "name": metadata["name"], "version": metadata["version"], "url": info["url"], "sha256": hashes.get("sha256", ""),
            "direct": bool(item.get("is_direct")), "yanked": bool(item.get("is_yanked") or link and link.is_yanked),   # pip before 23.3 does not report it
            "requested": bool(item.get("requested")), "extras": metadata.get("provides_extra", []),
        })
    return {"status": 0, "chosen": chosen, "broken": _broken(report["install"]), **search}


def _broken(changes):
    """Return the requirements, of installed packages or of the changes, that the changes would leave unmet. pip checks no package that
    it was not asked about."""
    from importlib.metadata import distributions
    from pip._vendor.packaging.requirements import InvalidRequirement, Requirement
    from pip._vendor.packaging.utils import canonicalize_name
    final = {}
    for distribution in distributions():
        if distribution.metadata["Name"]:
            final.setdefault(canonicalize_name(distribution.metadata["Name"]), (distribution.version, distribution.requires or []))
    changed = set()
    for item in changes:
        name = canonicalize_name(item["metadata"]["name"])
        changed.add(name)
        final[name] = (item["metadata"]["version"], item["metadata"].get("requires_dist") or [])
    broken = []
    for name, (version, requires) in final.items():
        for text in requires:
            try:
                need = Requirement(text)
            except InvalidRequirement:
                continue
            wanted = canonicalize_name(need.name)
            if wanted not in final or not changed & {name, wanted} or need.marker and not need.marker.evaluate({"extra": ""}):
                continue
            if not need.specifier.contains(final[wanted][0], prereleases=True):
                broken.append(f"{name} {version} needs {need.name}{need.specifier}, and {wanted} would be {final[wanted][0]}")
    return sorted(broken)[:20]


def build(task):
    """Build wheels of packages that come as source. This runs the packages' own code."""
    _find_pip(task)
    return {"status": _pip(["wheel", "--no-deps", "--progress-bar", "off", "--wheel-dir", "wheels", *task["arguments"]])}


def compile_all(task):
    """Write the bytecode of each tree into its target directory: otherwise each fresh process would compile what it imports."""
    import py_compile
    files = []
    for tree, target in task["trees"]:
        for top, _, names in os.walk(tree):
            cache = f"{target}{top[len(tree):]}/__pycache__"
            files += [(f"{top}/{name}", f"{cache}/{name[:-3]}.{sys.implementation.cache_tag}.pyc") for name in names if name.endswith(".py")]

    def work(share):
        for source, target in share:
            try:
                # The tree never changes, so imports need not check whether the source has.
                py_compile.compile(source, target, doraise=True, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
            except (py_compile.PyCompileError, OSError, ValueError, RecursionError, MemoryError):
                pass   # such as a template of a source file: importing it reports the error

    import gc
    gc.freeze()
    shares = max(1, min(len(os.sched_getaffinity(0)), len(files) // 50))
    children = []
    for number in range(1, shares):
        child = os.fork()
        if child == 0:
            work(files[number::shares])
            os._exit(0)
        children.append(child)
    work(files[::shares])
    for child in children:
        os.waitpid(child, 0)
    return {"status": 0, "files": len(files)}


TASKS = {"resolve": resolve, "build": build, "compile": compile_all}
