# Run once by the interpreter that the configuration names: says what it is and where its files lie.
import json, os, sys, sysconfig
maps = set()
try:
    with open("/proc/self/maps") as f:
        maps = {os.path.dirname(line.split(None, 5)[5].strip()) for line in f if line.count("/") and ".so" in line}
except OSError:
    pass
paths = sysconfig.get_paths()
print(json.dumps({
    "executable": sys.executable,
    "version": "%d.%d.%d" % sys.version_info[:3],
    "major": sys.version_info[0],
    "minor": sys.version_info[1],
    "implementation": sys.implementation.name,
    "roots": [os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix)],
    "paths": [p for p in [paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"]] + sys.path
              if p and os.path.isdir(p)],
    "libraries": sorted(maps),
    "abi": sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag,
    "modules": sorted({*sys.stdlib_module_names, *sys.builtin_module_names}),
}))
