# Run by `python -c`: builds the sandbox's own modules from source that Go sends, so that they lie in no directory and
# no user code can find or shadow them on disk.
import json, socket, sys, types
control = socket.socket(fileno=3)
boot = json.loads(control.recv(1 << 20))
for name, source in boot["sources"]:
    module = types.ModuleType(name)
    module.__file__ = name + ".py"
    sys.modules[name] = module
    exec(compile(source, name + ".py", "exec"), module.__dict__)
sys.modules["_sandbox_template"].main(control, boot["plan"])
