package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// links changes interfaces, addresses and routes of one network namespace, by the messages of rtnetlink(7). Numbers in them are the kernel's own.
type links struct {
	fd  int
	seq uint32
}

// here is the namespace of the calling thread.
func here() (*links, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: commitPatience}); err != nil {
		return nil, errors.Join(os.NewSyscallError("setsockopt", err), unix.Close(fd))
	}
	return &links{fd: fd}, nil
}

// linksOf is the namespace of a process. A thread enters it and is thrown away; the socket stays.
func linksOf(pid int) (*links, error) {
	type result struct {
		l   *links
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		var r result
		var space *os.File
		if space, r.err = os.Open(fmt.Sprintf("/proc/%d/ns/net", pid)); r.err == nil {
			if r.err = os.NewSyscallError("setns", unix.Setns(int(space.Fd()), unix.CLONE_NEWNET)); r.err == nil {
				r.l, r.err = here()
			}
			_ = space.Close() // only a descriptor
		}
		done <- r
	}()
	r := <-done
	return r.l, r.err
}

func (l *links) close() { _ = unix.Close(l.fd) } // nothing of it is left

// change asks for one change and waits for the kernel's word.
func (l *links) change(kind, flags uint16, parts ...[]byte) error {
	l.seq++
	body := join(parts)
	raw := make([]byte, 0, nlHeader+len(body))
	raw = binary.NativeEndian.AppendUint32(raw, uint32(nlHeader+len(body)))
	raw = binary.NativeEndian.AppendUint16(raw, kind)
	raw = binary.NativeEndian.AppendUint16(raw, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	raw = binary.NativeEndian.AppendUint32(raw, l.seq)
	raw = binary.NativeEndian.AppendUint32(raw, 0)
	raw = append(raw, body...)
	if err := unix.Sendto(l.fd, raw, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("send", err)
	}
	return awaitVerdict(l.fd, l.seq)
}

// info is the head of a message about an interface.
func info(index int, flags, change uint32) []byte {
	raw := make([]byte, 4, 16)
	raw = binary.NativeEndian.AppendUint32(raw, uint32(index))
	raw = binary.NativeEndian.AppendUint32(raw, flags)
	return binary.NativeEndian.AppendUint32(raw, change)
}

func native(kind uint16, value uint32) []byte {
	return attr(kind, binary.NativeEndian.AppendUint32(nil, value))
}

const vethPeer = 1 // VETH_INFO_PEER of linux/veth.h

// pair makes two interfaces that are one wire; the second is in the namespace of pid, 0 = of this one.
func (l *links) pair(name, peer string, pid int) error {
	other := [][]byte{info(0, 0, 0), text(unix.IFLA_IFNAME, peer)}
	if pid != 0 {
		other = append(other, native(unix.IFLA_NET_NS_PID, uint32(pid)))
	}
	return l.change(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, info(0, 0, 0), text(unix.IFLA_IFNAME, name),
		nested(unix.IFLA_LINKINFO, text(unix.IFLA_INFO_KIND, "veth"), nested(unix.IFLA_INFO_DATA, attr(vethPeer, join(other)))))
}

// index of an interface by its name.
func (l *links) index(name string) (int, error) {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(l.fd, unix.SIOCGIFINDEX, r); err != nil {
		return 0, err
	}
	return int(r.Uint32()), nil
}

// remove removes an interface; one that is not there is as good.
func (l *links) remove(name string) error {
	index, err := l.index(name)
	if errors.Is(err, syscall.ENODEV) {
		return nil
	}
	if err == nil {
		err = l.change(unix.RTM_DELLINK, 0, info(index, 0, 0))
	}
	if errors.Is(err, syscall.ENODEV) {
		return nil
	}
	return err
}

// connect gives an interface an address of its own, brings it up, and adds a route to another address that is right behind it.
func (l *links) connect(name string, own, behind netip.Addr) error {
	index, err := l.index(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	head := binary.NativeEndian.AppendUint32([]byte{unix.AF_INET, 32, 0, unix.RT_SCOPE_UNIVERSE}, uint32(index))
	if err := l.change(unix.RTM_NEWADDR, unix.NLM_F_CREATE, head, attr(unix.IFA_LOCAL, own.AsSlice()), attr(unix.IFA_ADDRESS, own.AsSlice())); err != nil {
		return fmt.Errorf("interface %s: add address: %w", name, err)
	}
	if err := l.change(unix.RTM_NEWLINK, 0, info(index, unix.IFF_UP, unix.IFF_UP)); err != nil {
		return fmt.Errorf("interface %s: bring up: %w", name, err)
	}
	if err := l.route(32, unix.RT_SCOPE_LINK, attr(unix.RTA_DST, behind.AsSlice()), native(unix.RTA_OIF, uint32(index))); err != nil {
		return fmt.Errorf("interface %s: add route: %w", name, err)
	}
	return nil
}

// by makes a neighbour the way to everywhere else.
func (l *links) by(gateway netip.Addr) error {
	return l.route(0, unix.RT_SCOPE_UNIVERSE, attr(unix.RTA_GATEWAY, gateway.AsSlice()))
}

func (l *links) route(bits, scope byte, attrs ...[]byte) error {
	head := []byte{unix.AF_INET, bits, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST, 0, 0, 0, 0}
	return l.change(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, head, join(attrs))
}

// own lists this thread's interfaces that begin so.
func own(prefix string) (names []string, err error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, i := range all {
		if strings.HasPrefix(i.Name, prefix) {
			names = append(names, i.Name)
		}
	}
	return names, nil
}

// hostRoute is one the kernel has: where to, and through which interface.
type hostRoute struct {
	iface string
	to    netip.Prefix
}

// routes lists those of this thread's namespace, but for the default one.
func routes() ([]hostRoute, error) {
	raw, err := os.ReadFile("/proc/thread-self/net/route")
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return parseRoutes(string(raw)), nil
}

// parseRoutes reads /proc/net/route: a heading, then interface, destination, gateway, flags, three counts and the mask; addresses are numbers in
// the kernel's order of bytes. A line that makes no sense is passed over.
func parseRoutes(table string) (list []hostRoute) {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		to, err := strconv.ParseUint(f[1], 16, 32)
		mask, err2 := strconv.ParseUint(f[7], 16, 32)
		if err != nil || err2 != nil || mask == 0 {
			continue
		}
		var addr, ones [4]byte
		binary.NativeEndian.PutUint32(addr[:], uint32(to))
		binary.NativeEndian.PutUint32(ones[:], uint32(mask))
		bits, _ := net.IPMask(ones[:]).Size()
		if bits == 0 { // holes
			continue
		}
		list = append(list, hostRoute{f[0], netip.PrefixFrom(netip.AddrFrom4(addr), bits)})
	}
	return list
}
