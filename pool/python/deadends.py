"""Records which requirements leave pip no choice, and bounds how many other versions it tries because of them.

When no version satisfies a requirement, pip tries another version of the package that has the requirement, and needs the metadata of
each: where an index does not serve metadata separately (PEP 658), it downloads whole wheels. Its message in the end is about the last
version that it tried, or it chooses a version so old that it does not have the extra that was asked for."""
import os
import time

# How many versions pip may try because one package has no version that will do (MISSING), and because requirements exclude each
# other (CONFLICTS). Older versions solve the latter more often: packages that pin each other release every day.
MISSING = 10
CONFLICTS = 200
KEPT = 50   # dead ends that are recorded at most

found = []   # the dead ends, in the order in which pip met them
state = {"gave_up": False, "deadline": 0.0, "conflicts": 0, "missing": {}}


def watch(task):
    """Hook into pip. Where this pip names its internals otherwise, nothing is recorded, and only the install's own bounds hold."""
    try:
        from pip._internal.exceptions import InstallationError
        from pip._internal.operations.prepare import RequirementPreparer
        from pip._vendor.packaging.utils import canonicalize_name
        from pip._vendor.resolvelib.resolvers import RequirementsConflicted
        look, conflict = RequirementPreparer.prepare_linked_requirement, RequirementsConflicted.__init__
    except (ImportError, AttributeError):
        return

    def give_up():
        state["gave_up"] = True
        raise InstallationError("gave up after too many versions that cannot be installed")

    def conflicted(self, criterion, *arguments, **options):
        conflict(self, criterion, *arguments, **options)
        try:
            ends = _describe(criterion, canonicalize_name)
        except Exception:
            return
        if not ends:
            return
        state["deadline"] = state["deadline"] or time.monotonic() + task["search_seconds"]
        for end in ends:
            if end not in found and len(found) < KEPT:
                found.append(end)
        if ends[0]["missing"]:
            name = ends[0]["name"]
            state["missing"][name] = state["missing"].get(name, 0) + 1
        else:
            state["conflicts"] += 1
        if state["conflicts"] >= CONFLICTS or max(state["missing"].values(), default=0) >= MISSING:
            give_up()

    def prepare(self, *arguments, **options):
        if state["deadline"] and (time.monotonic() > state["deadline"] or _held(task["work"]) > task["search_bytes"]):
            give_up()
        return look(self, *arguments, **options)

    RequirementPreparer.prepare_linked_requirement, RequirementsConflicted.__init__ = prepare, conflicted


def _describe(criterion, canonicalize_name):
    """Return the requirements that left nothing to choose; none when the only one is what the client asked for, which pip reports well."""
    information = list(criterion.information)
    if any(parent is None for _, parent in information) and len(information) == 1:
        return []
    names = {canonicalize_name(requirement.project_name) for requirement, _ in information}
    # A single requirement, of which no candidate was ruled out: then no version satisfies it.
    missing = len({str(requirement) for requirement, _ in information}) == 1 and not list(criterion.incompatibilities)
    ends = []
    for requirement, parent in information:
        line = getattr(requirement, "_ireq", None)
        ends.append({
            "name": canonicalize_name(requirement.project_name),
            "specifier": str(line.specifier) if line is not None and line.req is not None else "",
            "needs": requirement.format_for_error().partition(";")[0].strip(),   # newer pip adds the marker
            "parent": parent.name if parent else "",
            "parent_version": str(parent.version) if parent else "",
            "missing": missing and len(names) == 1 and line is not None and line.link is None,
        })
    return ends


def _held(top):
    """Return how many bytes the files below a directory take up on disk."""
    held = 0
    for directory, _, names in os.walk(top):
        for name in names:
            try:
                held += os.lstat(f"{directory}/{name}").st_blocks * 512
            except OSError:
                pass
    return held
