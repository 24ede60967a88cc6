# Run by `python -c`. Builds the sandbox's own modules from source that Go sends over the control socket (descriptor 3): they
# lie in no directory, so user code can neither find nor shadow them on disk. The message is JSON, which is a Python expression
# but for true, false and null, so eval reads it. The json module would also load re and enum, whose memory every fork would copy.
import sys
sys.path.remove("")   # the working directory, which -c adds
import _socket
control = _socket.socket(fileno=3)
boot = eval(control.recv(1 << 20), {"__builtins__": {}, "true": True, "false": False, "null": None})
for name, source in boot.pop("sources"):
    module = type(sys)(name)
    module.__file__ = name + ".py"
    sys.modules[name] = module
    exec(compile(source, name + ".py", "exec"), module.__dict__)
del source, module
sys.modules["_sandbox_" + boot.pop("main")].main(control, boot.pop("plan"))
