package linux

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// Bounds of what a vault holds.
const (
	maxKept     = 256
	maxKeptKey  = 64   // bytes
	maxKeptNote = 512  // bytes of state
	maxKeptSafe = 64   // bytes of a safe action
	vaultPacket = 2048 // bytes of one message
	defaultHold = 10 * time.Second
	lapseAgain  = time.Second // until an action that failed is tried again
	listWrite   = time.Second // for an agent to read a list; everything else waits meanwhile
)

// Vault holds copies of descriptors for an agent that may die, and one safe action for each. It knows nothing of what they are: when
// the agent has said nothing for longer than it asked to be held, each action is done until it succeeded once, and the copies are held
// on. The process it lives in starts no agent without a fresh Pass.
type Vault struct {
	log *slog.Logger

	mu      sync.Mutex
	kept    map[string]*keptFD
	hold    time.Duration
	missing *time.Timer // runs while something is kept
	heard   uint64      // messages of agents so far
	lapsed  bool        // safe actions were done, and no agent was told yet
}

// keptFD is one descriptor, and how far its safe action has come since an agent was heard of.
type keptFD struct {
	fd     int
	safe   hal.SafeAction
	state  []byte
	done   uint64 // heard when the action succeeded
	failed uint64 // heard when the log had that it does not
	trying bool   // it is under way; a device that hangs holds it up for as long
}

// NewVault makes an empty vault.
func NewVault(logger *slog.Logger) *Vault {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Vault{log: logger, kept: map[string]*keptFD{}, hold: defaultHold}
}

// Pass makes the door for one agent: the file is the agent's end, for the child process to inherit. The vault's end is served until
// the agent's is closed everywhere.
func (v *Vault) Pass() (*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("pair of sockets for the agent: %w", err)
	}
	if err := unix.SetNonblock(pair[0], true); err != nil { // waited for by the runtime, not by a thread
		closeFD(pair[0])
		closeFD(pair[1])
		return nil, err
	}
	near := os.NewFile(uintptr(pair[0]), "vault")
	go v.serve(near)
	return os.NewFile(uintptr(pair[1]), "keeper"), nil
}

// vaultRequest is one message of the agent: keep (with a descriptor, or without one a new action and state for the key), drop, list, beat.
type vaultRequest struct {
	Seq   uint64         `json:"seq"`
	Op    string         `json:"op"`
	Key   string         `json:"key,omitempty"`
	Safe  hal.SafeAction `json:"safe,omitzero"`
	State []byte         `json:"state,omitempty"`
	Hold  time.Duration  `json:"hold,omitempty"`
}

// vaultAnswer ends what a request brought; a list has one answer with a Key and a descriptor for each entry before it.
type vaultAnswer struct {
	Seq    uint64 `json:"seq"`
	Err    string `json:"err,omitempty"`
	Key    string `json:"key,omitempty"`
	State  []byte `json:"state,omitempty"`
	Lapsed bool   `json:"lapsed,omitempty"`
}

func (v *Vault) serve(conn *os.File) {
	defer conn.Close()
	buf := make([]byte, vaultPacket)
	for {
		n, fd, err := receivePacket(conn, buf)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				v.log.Warn("an agent's outputs are held as they were", "err", err)
			}
			return
		}
		var req vaultRequest
		var answer vaultAnswer
		if err := json.Unmarshal(buf[:n], &req); err != nil {
			answer.Err = err.Error()
		} else if err := v.do(conn, req, &fd, &answer); err != nil {
			answer.Err = err.Error()
		}
		if fd >= 0 {
			closeFD(fd)
		}
		answer.Seq = req.Seq
		if err := sendPacket(conn, answer, -1); err != nil {
			return // the agent is gone; what it left is held
		}
	}
}

// do does one request. It takes fd by setting it to -1.
func (v *Vault) do(conn *os.File, req vaultRequest, fd *int, answer *vaultAnswer) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.seenLocked(req.Hold)
	switch req.Op {
	case "beat":
		answer.Lapsed, v.lapsed = v.lapsed, false
		return nil
	case "keep":
		return v.keepLocked(req, fd)
	case "drop":
		k := v.kept[req.Key]
		if k == nil {
			return nil
		}
		delete(v.kept, req.Key)
		err := MakeSafe(k.fd, k.safe)
		closeFD(k.fd)
		return err
	case "list":
		_ = conn.SetWriteDeadline(time.Now().Add(listWrite)) // a socket of ours takes it
		defer func() { _ = conn.SetWriteDeadline(time.Time{}) }()
		for key, k := range v.kept {
			if err := sendPacket(conn, vaultAnswer{Seq: req.Seq, Key: key, State: k.state}, k.fd); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("request %.16q: want keep, drop, list or beat", req.Op)
}

func (v *Vault) keepLocked(req vaultRequest, fd *int) error {
	k := v.kept[req.Key]
	switch {
	case req.Key == "" || len(req.Key) > maxKeptKey || len(req.State) > maxKeptNote || len(req.Safe.Bytes) > maxKeptSafe:
		return fmt.Errorf("entry %.70q with %d bytes of state: too long", req.Key, len(req.State))
	case k == nil && *fd < 0:
		return fmt.Errorf("entry %q: no descriptor came", req.Key)
	case k == nil && len(v.kept) >= maxKept:
		return fmt.Errorf("%d entries are held, and there is no room for more", maxKept)
	case k == nil:
		k = &keptFD{fd: *fd}
		v.kept[req.Key] = k
	case *fd >= 0:
		closeFD(k.fd)
		k.fd = *fd
	}
	*fd = -1
	k.safe, k.state = req.Safe, req.State
	return nil
}

// seenLocked starts the time anew after which an agent is missing.
func (v *Vault) seenLocked(hold time.Duration) {
	v.heard++
	if hold > 0 {
		v.hold = hold
	}
	if v.missing == nil {
		v.missing = time.AfterFunc(v.hold, v.lapse)
		return
	}
	v.missing.Reset(v.hold)
}

// lapse makes safe what a missing agent left, all at the same time: a device that hangs holds up no other. What is held stays held: the
// level stays where it is safe.
func (v *Vault) lapse() {
	v.mu.Lock()
	defer v.mu.Unlock()
	open := false
	for key, k := range v.kept {
		if k.done == v.heard || !k.safe.Set && len(k.safe.Bytes) == 0 {
			continue
		}
		open = true
		if k.trying {
			continue
		}
		fd, err := unix.FcntlInt(uintptr(k.fd), unix.F_DUPFD_CLOEXEC, 0) // that of the entry may be closed meanwhile
		if err != nil {
			v.log.Error("output of a missing agent not safe", "name", key, "err", err)
			continue
		}
		k.trying, v.lapsed = true, true
		go v.attempt(key, k, fd, k.safe)
	}
	if open {
		v.missing.Reset(lapseAgain)
	}
}

// attempt does a safe action on a descriptor of its own.
func (v *Vault) attempt(key string, k *keptFD, fd int, safe hal.SafeAction) {
	err := MakeSafe(fd, safe)
	closeFD(fd)
	v.mu.Lock()
	defer v.mu.Unlock()
	k.trying = false
	switch {
	case err == nil:
		k.done = v.heard
		v.log.Warn("output of a missing agent is safe now", "name", key, "after", v.hold)
	case k.failed != v.heard:
		k.failed = v.heard
		v.log.Error("output of a missing agent not safe, tried again until it is", "name", key, "err", err)
	}
}

func sendPacket(conn *os.File, doc any, fd int) error {
	raw, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	control, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = control.Write(func(c uintptr) bool {
		inner = unix.Sendmsg(int(c), raw, rights, nil, unix.MSG_NOSIGNAL)
		return !again(inner)
	})
	return errors.Join(err, inner)
}

// receivePacket reads one message and at most one descriptor, -1 without. The end of the other side is io.EOF.
func receivePacket(conn *os.File, buf []byte) (n, fd int, err error) {
	oob := make([]byte, unix.CmsgSpace(4))
	fd = -1
	oobn, flags := 0, 0
	control, err := conn.SyscallConn()
	if err != nil {
		return 0, -1, err
	}
	var inner error
	err = control.Read(func(c uintptr) bool {
		n, oobn, flags, _, inner = unix.Recvmsg(int(c), buf, oob, unix.MSG_CMSG_CLOEXEC)
		return !again(inner)
	})
	if err = errors.Join(err, inner); err != nil {
		return 0, -1, err
	}
	list, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return 0, -1, err
	}
	for i := range list {
		fds, err := unix.ParseUnixRights(&list[i])
		if err != nil {
			continue
		}
		for _, one := range fds {
			if fd >= 0 {
				closeFD(fd)
			}
			fd = one
		}
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return n, fd, fmt.Errorf("message beyond %d bytes: %w", len(buf), unix.EMSGSIZE)
	}
	if n == 0 {
		if fd >= 0 {
			closeFD(fd)
		}
		return 0, -1, io.EOF
	}
	return n, fd, nil
}

// again says that a call on a non-blocking descriptor wants to be repeated.
func again(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) }
