package hint

import (
	"regexp"
	"strings"
)

const (
	noNetwork       = "There is no network here: no name can be looked up and no host be reached."
	noNetworkStdin  = noNetwork + " Put the data into the code, or send it as stdin; packages come with pip_install where the server offers it."
	noNetworkKernel = noNetwork + " Put the data into the code; packages come with pip_install where the server offers it."
	noSockets       = "A program cannot open sockets here, not even to itself: call the functions directly, or connect processes and threads by pipes, queues or socket.socketpair()."
)

// unreachable are what the C library, Python and common commands say of a host that cannot be resolved or reached.
var unreachable = []string{
	"Temporary failure in name resolution", "Name or service not known", "No address associated with hostname", "Network is unreachable",
	"Could not resolve host", "unable to resolve host", "Failed to resolve '", "Could not contact DNS servers",
}

// gaveUp are what libraries say of a connection that has failed, without the reason.
var gaveUp = []string{
	"Max retries exceeded with url", "Failed to establish a new connection", "All connection attempts failed", "Cannot connect to host",
	"Connection refused", "Connect call failed", "[Errno 113]", "No route to host",
}

var (
	// host matches the host to which, by a message, a connection has failed.
	host = regexp.MustCompile(`(?:host='|to host |for url: https?://|\(')(\[?[A-Za-z0-9.:_-]+?\]?)(?:'|:\d|[/\s])`)
	// loopback matches names and addresses of the local machine.
	loopback = regexp.MustCompile(`^(?:localhost|ip6-localhost|127(?:\.\d+){1,3}|::1|\[::1\]|0\.0\.0\.0)$`)
	// ownServer matches an address of the local machine in a program.
	ownServer = regexp.MustCompile(`localhost|127\.0\.0\.\d|0\.0\.0\.0|::1\b`)
	// elsewhere matches a URL in a program; its group is the host.
	elsewhere = regexp.MustCompile(`(?:https?|ftp|wss?)://([A-Za-z0-9.-]+)`)
)

// onNetwork returns the hint that there is no network, for a program that has failed because of that.
func onNetwork(e End, x exception) string {
	text := x.name + ": " + x.message
	denied := isDenied(x)
	if !denied && !containsAny(text, unreachable...) && !containsAny(text, gaveUp...) {
		if !x.is("CalledProcessError", "SystemExit") || !containsAny(x.chain, unreachable...) {
			return ""
		}
	}
	if toItself(e, text) {
		if denied || containsAny(text, unreachable...) {
			return noSockets
		}
		return "" // a server of the program's own does not listen, which the exception says already
	}
	return offline(e)
}

func isDenied(x exception) bool {
	if !strings.Contains(x.message, "[Errno 13] Permission denied") || strings.Contains(x.message, "Permission denied: ") {
		return false
	}
	return strings.Contains(x.message, "urlopen error") || strings.Contains(x.message, "connection: [Errno 13]") ||
		strings.Contains(x.message, "Cannot connect to host") ||
		x.is("PermissionError", "ConnectError") && containsAny(x.chain, `socket.py", line`, "in create_connection", "socket.socket(")
}

// toItself reports whether a connection that failed was to the program's own machine.
func toItself(e End, text string) bool {
	if found := host.FindStringSubmatch(text); found != nil {
		return loopback.MatchString(found[1])
	}
	code := head(e.Code)
	for _, found := range elsewhere.FindAllStringSubmatch(code, 20) {
		if !loopback.MatchString(found[1]) {
			return false
		}
	}
	return ownServer.MatchString(code)
}

func offline(e End) string {
	if e.Kernel {
		return noNetworkKernel
	}
	return noNetworkStdin
}

// onQuietNetwork returns that hint for a program that printed the failure and ended with exit code 0. The output may be about something
// else, so its code must use the network, too.
func onQuietNetwork(e End, out, errs string) string {
	if !containsAny(out, unreachable...) && !containsAny(errs, unreachable...) && !containsAny(out, "Max retries exceeded with url") {
		return ""
	}
	code := head(e.Code)
	if !containsAny(code, "http", "urllib", "requests", "socket", "curl", "wget", "git ", "download", "ftplib", "smtplib", "ping") || toItself(e, out+errs) {
		return ""
	}
	return offline(e)
}
