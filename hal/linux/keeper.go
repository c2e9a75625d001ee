package linux

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// Keeper is the agent's end of a [Vault]: hal.Keeper over the socket that the agent inherited. One request is under way at a time.
type Keeper struct {
	hold  time.Duration
	began time.Time

	beat  sync.Mutex   // one beat, with what follows from it, at a time
	heard atomic.Int64 // when the last beat that was answered was sent, since began

	mu     sync.Mutex
	conn   *os.File
	seq    uint64
	rest   time.Time // it is not asked before
	lapsed bool      // said in an answer that nobody waited for any more
	buf    [vaultPacket]byte
}

// KeeperVar names the inherited descriptor in the environment of an agent.
const KeeperVar = "SANDPIPER_KEEPER"

// The warden does nothing else: one that takes longer than keeperTime for an answer is stopped or gone, and not asked for keeperRest.
const (
	keeperTime = 500 * time.Millisecond
	keeperRest = 2 * time.Second
	listTime   = 10 * time.Second // at the start, when nobody waits for an output and much depends on the answer
)

// NewKeeper takes an inherited end. hold is how long the vault keeps outputs as they are when nothing is heard of this process; 0 = 10 s.
func NewKeeper(fd int, hold time.Duration) (*Keeper, error) {
	unix.CloseOnExec(fd)
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_SEQPACKET {
		return nil, fmt.Errorf("descriptor %d is no socket of a warden: %w", fd, errors.Join(err, unix.ENOTSOCK))
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	if hold <= 0 {
		hold = defaultHold
	}
	return &Keeper{hold: hold, began: time.Now(), conn: os.NewFile(uintptr(fd), "keeper")}, nil
}

// ask sends a request and calls each for every answer before the last.
func (k *Keeper) ask(req vaultRequest, fd int, each func(vaultAnswer, int)) (vaultAnswer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Now().Before(k.rest) {
		return vaultAnswer{}, errors.New("the warden does not answer")
	}
	limit, began := keeperTime, time.Now()
	if req.Op == "list" {
		limit = listTime
	}
	a, err := k.exchange(req, fd, limit, each)
	if errors.Is(err, os.ErrDeadlineExceeded) && time.Since(began) > 2*limit { // it was this process that was stopped
		a, err = k.exchange(req, fd, limit, each)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		k.rest = time.Now().Add(keeperRest)
	}
	return a, err
}

func (k *Keeper) exchange(req vaultRequest, fd int, limit time.Duration, each func(vaultAnswer, int)) (vaultAnswer, error) {
	k.seq++
	req.Seq, req.Hold = k.seq, k.hold
	_ = k.conn.SetDeadline(time.Now().Add(limit)) // it fails where the call below does, too
	if err := sendPacket(k.conn, req, fd); err != nil {
		return vaultAnswer{}, fmt.Errorf("ask the warden: %w", err)
	}
	for {
		n, got, err := receivePacket(k.conn, k.buf[:])
		if err != nil {
			return vaultAnswer{}, fmt.Errorf("answer of the warden: %w", err)
		}
		var a vaultAnswer
		if err := json.Unmarshal(k.buf[:n], &a); err != nil {
			return a, fmt.Errorf("answer of the warden: %w", err)
		}
		if a.Seq == req.Seq && a.Key != "" && got >= 0 && each != nil {
			each(a, got)
			continue
		}
		if got >= 0 {
			closeFD(got)
		}
		if a.Seq != req.Seq { // to one that was given up
			k.lapsed = k.lapsed || a.Lapsed
			continue
		}
		a.Lapsed = a.Lapsed || k.lapsed
		k.lapsed = false
		if a.Err != "" {
			return a, errors.New("the warden: " + a.Err)
		}
		return a, nil
	}
}

// Keep gives the vault a copy of fd, or with fd < 0 a new action and state for what it has.
func (k *Keeper) Keep(key string, fd int, safe hal.SafeAction, state []byte) error {
	_, err := k.ask(vaultRequest{Op: "keep", Key: key, Safe: safe, State: state}, fd, nil)
	return err
}

// Drop has the vault make an entry safe and let go of it.
func (k *Keeper) Drop(key string) error {
	_, err := k.ask(vaultRequest{Op: "drop", Key: key}, -1, nil)
	return err
}

// List gives copies of what the vault has; the caller owns the descriptors.
func (k *Keeper) List() ([]hal.Kept, error) {
	var list []hal.Kept
	_, err := k.ask(vaultRequest{Op: "list"}, -1, func(a vaultAnswer, fd int) {
		list = append(list, hal.Kept{Key: a.Key, FD: fd, State: a.State})
	})
	return list, err
}

// Awake makes sure that the vault has not taken this process for missing: without a word for most of the time that a vault waits, it is
// asked. lapsed is called before Awake returns when outputs were made safe; what drives one now must not be of before that. A warden that
// does not answer has made nothing safe.
func (k *Keeper) Awake(lapsed func()) {
	if time.Since(k.began)-time.Duration(k.heard.Load()) >= k.hold*3/4 {
		_ = k.tell(lapsed)
	}
}

func (k *Keeper) tell(lapsed func()) error {
	k.beat.Lock()
	defer k.beat.Unlock()
	sent := time.Since(k.began)
	a, err := k.ask(vaultRequest{Op: "beat"}, -1, nil)
	if err != nil {
		return err
	}
	if a.Lapsed {
		lapsed()
	}
	k.heard.Store(int64(sent))
	return nil
}

// Run tells the vault again and again that this process lives, until ctx ends. heard is called with each answer, and with true before
// that when the vault had taken it for missing and made its outputs safe.
func (k *Keeper) Run(ctx context.Context, heard func(lapsed bool)) {
	tick := time.NewTicker(k.hold / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if k.tell(func() { heard(true) }) == nil { // a warden that does not answer may do so later
			heard(false)
		}
	}
}
