package upstream

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// watchAgain is when watching is tried again after the kernel ended it, which it does when events come faster than they are read.
const watchAgain = time.Second

// WatchLinks returns a channel that receives when the network may have come back: a network interface got its carrier, an address
// was added, or a default route. It holds at most one such event. The goroutine ends, and the channel is closed, when ctx ends. The
// error is the kernel's, when it does not let this process watch at all.
func WatchLinks(ctx context.Context) (<-chan struct{}, error) {
	w, err := newWatch()
	if err != nil {
		return nil, fmt.Errorf("watch network interfaces: %w", err)
	}
	up := make(chan struct{}, 1)
	go func() {
		defer close(up)
		for w != nil {
			w.run(ctx, up)
			w = again(ctx)
			signal(up) // whatever happened in between was not seen
		}
	}()
	return up, nil
}

// again makes a new watch, waiting as often as needed; nil when ctx ends.
func again(ctx context.Context) *watch {
	for {
		timer := time.NewTimer(watchAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		if w, err := newWatch(); err == nil {
			return w
		}
	}
}

// watch is a set of subscriptions to the kernel's events, and what it has seen.
type watch struct {
	done   chan struct{}
	links  chan netlink.LinkUpdate
	addrs  chan netlink.AddrUpdate
	routes chan netlink.RouteUpdate

	running   map[int]bool    // by index of the interface
	addresses map[string]bool // "index address"
}

func newWatch() (*watch, error) {
	w := &watch{
		done: make(chan struct{}), links: make(chan netlink.LinkUpdate), addrs: make(chan netlink.AddrUpdate), routes: make(chan netlink.RouteUpdate),
		running: map[int]bool{}, addresses: map[string]bool{},
	}
	if err := netlink.LinkSubscribeWithOptions(w.links, w.done, netlink.LinkSubscribeOptions{ListExisting: true}); err != nil {
		close(w.done)
		return nil, err
	}
	if err := netlink.AddrSubscribeWithOptions(w.addrs, w.done, netlink.AddrSubscribeOptions{ListExisting: true}); err != nil {
		close(w.done)
		drain(w.links)
		return nil, err
	}
	if err := netlink.RouteSubscribe(w.routes, w.done); err != nil {
		close(w.done)
		drain(w.links)
		drain(w.addrs)
		return nil, err
	}
	return w, nil
}

// run reports events until ctx ends or the kernel stops telling.
func (w *watch) run(ctx context.Context, up chan struct{}) {
	defer func() {
		close(w.done)
		drain(w.links)
		drain(w.addrs)
		drain(w.routes)
	}()
	for {
		var news bool
		select {
		case u, ok := <-w.links:
			if !ok {
				return
			}
			news = w.link(u)
		case u, ok := <-w.addrs:
			if !ok {
				return
			}
			news = w.address(u)
		case u, ok := <-w.routes:
			if !ok {
				return
			}
			news = u.Type == unix.RTM_NEWROUTE && isDefault(u.Dst)
		case <-ctx.Done():
			return
		}
		if news {
			signal(up)
		}
	}
}

// drain lets a subscription's goroutine end: it may be about to send.
func drain[T any](c <-chan T) {
	for range c {
	}
}

// link says whether an interface has got its carrier.
func (w *watch) link(u netlink.LinkUpdate) bool {
	index := int(u.Index)
	if u.Header.Type == unix.RTM_DELLINK {
		delete(w.running, index)
		return false
	}
	const want = unix.IFF_UP | unix.IFF_RUNNING
	was, is := w.running[index], u.Flags&want == want
	w.running[index] = is
	return is && !was && u.Flags&unix.IFF_LOOPBACK == 0
}

// address says whether an address is new. The kernel tells of one again and again, as router advertisements renew it.
func (w *watch) address(u netlink.AddrUpdate) bool {
	key := fmt.Sprint(u.LinkIndex, " ", u.LinkAddress.IP)
	if !u.NewAddr {
		delete(w.addresses, key)
		return false
	}
	if w.addresses[key] || u.LinkAddress.IP.IsLoopback() {
		return false
	}
	w.addresses[key] = true
	return true
}

func isDefault(dst *net.IPNet) bool {
	if dst == nil {
		return true
	}
	ones, _ := dst.Mask.Size()
	return ones == 0 && dst.IP.IsUnspecified()
}
