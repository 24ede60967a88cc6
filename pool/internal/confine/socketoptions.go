package confine

import (
	"slices"

	"golang.org/x/sys/unix"
)

// socketOptions are the socket options that programs may set, by level: those that Python's standard library, web servers and clients, and
// message queues set. All others are refused, since few programs need them and the kernel's faults are found there: upper layer protocols
// on TCP (TCP_ULP, CVE-2026-46300), packet filters, multicast, netfilter's tables, timestamps and zero copy.
//
// Those that are ignored ask for larger buffers. What lies in these is in no process's size, so buffers keep their default size, and the
// call succeeds all the same: the kernel, too, grants less than was asked for, up to net.core.wmem_max (socket(7)).
var socketOptions = []struct {
	level            uint32
	options, ignored []uint32
}{
	{level: unix.SOL_SOCKET, ignored: []uint32{unix.SO_SNDBUF, unix.SO_RCVBUF}, options: []uint32{
		unix.SO_REUSEADDR, unix.SO_REUSEPORT, unix.SO_KEEPALIVE, unix.SO_BROADCAST, unix.SO_OOBINLINE, unix.SO_LINGER, unix.SO_PASSCRED,
		unix.SO_RCVLOWAT, unix.SO_RCVTIMEO, unix.SO_SNDTIMEO, unix.SO_RCVTIMEO_NEW, unix.SO_SNDTIMEO_NEW,
	}},
	{level: unix.IPPROTO_TCP, options: []uint32{
		unix.TCP_NODELAY, unix.TCP_MAXSEG, unix.TCP_CORK, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT, unix.TCP_SYNCNT, unix.TCP_LINGER2,
		unix.TCP_DEFER_ACCEPT, unix.TCP_QUICKACK, unix.TCP_USER_TIMEOUT, unix.TCP_NOTSENT_LOWAT,
	}},
	{level: unix.IPPROTO_IP, options: []uint32{unix.IP_TOS, unix.IP_TTL, unix.IP_PKTINFO, unix.IP_MTU_DISCOVER, unix.IP_RECVERR, unix.IP_RECVTTL, unix.IP_RECVTOS, unix.IP_BIND_ADDRESS_NO_PORT}},
	{level: unix.IPPROTO_IPV6, options: []uint32{
		unix.IPV6_V6ONLY, unix.IPV6_UNICAST_HOPS, unix.IPV6_TCLASS, unix.IPV6_MTU_DISCOVER,
		unix.IPV6_RECVERR, unix.IPV6_RECVPKTINFO, unix.IPV6_RECVHOPLIMIT, unix.IPV6_RECVTCLASS,
	}},
}

// socketOptions jumps to allow for setsockopt with a listed option, and ignores the call for one that is to be. For others it answers
// ENOPROTOOPT, as a kernel without the option does: libraries handle that.
func (p *seccompAssembler) socketOptions(allow position) position {
	refuse := p.errno(unix.ENOPROTOOPT)
	next := refuse
	for _, of := range slices.Backward(socketOptions) {
		known := p.condition(seccompCondition{argument: 2, values: of.options}, allow, refuse)
		known = p.condition(seccompCondition{argument: 2, values: of.ignored}, p.errno(0), known)
		next = p.condition(seccompCondition{argument: 1, values: []uint32{of.level}}, known, next)
	}
	return next
}
