package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

const (
	testHub    = "hub.example.net"
	testDevice = "edge1"
)

var (
	testBuilt = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	testNow   = time.Date(2026, 8, 20, 12, 0, 0, 0, time.UTC)
)

// memory is Docs in a map, with a switch that makes writing fail.
type memory struct {
	mu   sync.Mutex
	docs map[string][]byte
	fail error
}

func (m *memory) Get(key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.docs[key]), nil
}

func (m *memory) Put(_ context.Context, key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if m.docs == nil {
		m.docs = map[string][]byte{}
	}
	if value == nil {
		delete(m.docs, key)
		return nil
	}
	m.docs[key] = bytes.Clone(value)
	return nil
}

func (m *memory) Keys(prefix string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, key := range slices.Sorted(maps.Keys(m.docs)) {
		if strings.HasPrefix(key, prefix) {
			out = append(out, key)
		}
	}
	return out, nil
}

func (m *memory) setFail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

// dial is a device clock whose hand the test moves: set jumps it, pass lets time go by.
type dial struct {
	mu      sync.Mutex
	now     time.Time
	elapsed time.Duration
}

func (d *dial) read() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *dial) set(to time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = to
}

func (d *dial) pass(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now, d.elapsed = d.now.Add(by), d.elapsed+by
}

func (d *dial) since() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.elapsed
}

// bed is a registry with what the test needs to look into it.
type bed struct {
	*Registry
	docs  *memory
	clock *dial
	logs  *logs
}

func open(t *testing.T, edit func(*Config)) *bed {
	t.Helper()
	b := &bed{docs: &memory{}, clock: &dial{now: testNow}, logs: &logs{}}
	cfg := Config{
		Hub: testHub, Device: testDevice, Gateway: "gw01",
		Credential: Credential{Key: iothub.NewKey()},
		Docs:       b.docs, Built: testBuilt, Now: b.clock.read,
		Logger: slog.New(slog.NewTextHandler(b.logs, nil)),
	}
	if edit != nil {
		edit(&cfg)
	}
	var err error
	if b.Registry, err = New(t.Context(), cfg); err != nil {
		t.Fatalf("open registry: %v", err)
	}
	b.Registry.clock.elapsed = b.clock.since
	return b
}

// again opens another registry on the same documents, as the next start of the agent does.
func (b *bed) again(t *testing.T, edit func(*Config)) *bed {
	t.Helper()
	next := open(t, func(c *Config) {
		logger := c.Logger
		*c = b.cfg
		c.HTTP, c.Logger = nil, logger
		if edit != nil {
			edit(c)
		}
	})
	next.docs, next.clock = b.docs, b.clock
	next.Registry.clock.elapsed = b.clock.since
	return next
}

func (b *bed) ensure(t *testing.T, name string) Module {
	t.Helper()
	m, err := b.Ensure(t.Context(), name)
	if err != nil {
		t.Fatalf("ensure %s: %v", name, err)
	}
	return m
}

type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSuffix(l.buf.String(), "\n"), "\n")
}

func TestEnsureMakesAnIdentityThatOutlivesTheAgent(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	first := b.ensure(t, "filter")
	if len(first.Generation) != 18 || strings.Trim(first.Generation, "0123456789") != "" {
		t.Errorf("generation: got %q, want 18 digits", first.Generation)
	}
	if first.OnHub {
		t.Error("a new identity claims to be on the hub")
	}
	next := b.again(t, nil)
	got, ok := next.Module("filter")
	if !ok || got.Generation != first.Generation || got.Key.Text() != first.Key.Text() || got.ID != first.ID {
		t.Errorf("after a restart: got %+v (%v), want %+v", got, ok, first)
	}
	if same := next.ensure(t, "filter"); same.Generation != first.Generation {
		t.Errorf("ensured again: got generation %s, want %s", same.Generation, first.Generation)
	}
}

func TestEnsureGivesNothingOutThatIsNotDurable(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	full := errors.New("no space left on device")
	b.docs.setFail(full)
	if _, err := b.Ensure(t.Context(), "filter"); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
	if _, ok := b.Module("filter"); ok {
		t.Error("the identity is known although it is not on disk")
	}
	b.docs.setFail(nil)
	b.ensure(t, "filter")
}

func TestEnsureRefusesNamesThatAreNoIds(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	for name, module := range map[string]string{"empty": "", "a slash": "a/b", "a space": "a b", "too long": strings.Repeat("x", 129)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if m, err := b.Ensure(t.Context(), module); err == nil {
				t.Errorf("got %v, want an error", m.ID)
			}
		})
	}
}

func TestARemovedModuleMayDrainButNotSpeak(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	old := b.ensure(t, "filter")
	if err := b.Remove(t.Context(), "filter"); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.Module("filter"); ok {
		t.Error("a removed module is still live")
	}
	next := b.again(t, nil)
	if got := next.Retired(); len(got) != 1 || got[0].ID != old.ID {
		t.Errorf("retired after a restart: got %v, want %v", got, old.ID)
	}
	if _, _, err := next.Password(old.ID); err != nil {
		t.Errorf("password to drain with: %v", err)
	}
	if err := next.Purge(t.Context(), "filter"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := next.Password(old.ID); !errors.Is(err, ErrUnknown) {
		t.Errorf("password after purge: got %v, want %v", err, ErrUnknown)
	}
	raw, _ := next.docs.Get(modulePrefix + "filter")
	if bytes.Contains(raw, []byte(old.Key.Text())) {
		t.Errorf("a purged identity still has its key on disk: %s", raw)
	}
}

func TestAModuleMadeAnewHasAnotherKeyAndGeneration(t *testing.T) {
	t.Parallel()
	for name, purge := range map[string]bool{"after remove": false, "after purge": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, nil)
			old := b.ensure(t, "filter")
			if err := b.Remove(t.Context(), "filter"); err != nil {
				t.Fatal(err)
			}
			if purge {
				if err := b.Purge(t.Context(), "filter"); err != nil {
					t.Fatal(err)
				}
			}
			anew := b.ensure(t, "filter")
			if anew.Generation == old.Generation || anew.Key.Text() == old.Key.Text() {
				t.Errorf("got the old identity back: %+v", anew)
			}
			if err := b.Purge(t.Context(), "filter"); err != nil {
				t.Fatal(err)
			}
			if _, ok := b.Module("filter"); !ok {
				t.Error("a late purge took the new identity away")
			}
		})
	}
}

func TestTheAgentsOwnModulesAreNotRemoved(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	b.ensure(t, iothub.EdgeAgent)
	if err := b.Remove(t.Context(), iothub.EdgeAgent); err == nil {
		t.Error("got nil, want an error")
	}
}

func TestAnotherHubMeansNotOnTheHub(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	m := b.ensure(t, "filter")
	b.change.Lock()
	e := (*b.entries.Load())["filter"]
	e.OnHub = true
	err := b.putLocked(t.Context(), "filter", e)
	b.change.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := b.again(t, nil).Module("filter"); !got.OnHub {
		t.Error("same hub: got OnHub false, want true")
	}
	got, _ := b.again(t, func(c *Config) { c.Hub = "other.example.net" }).Module("filter")
	if got.OnHub || got.Generation != m.Generation {
		t.Errorf("other hub: got OnHub %v generation %s, want false and %s", got.OnHub, got.Generation, m.Generation)
	}
}

func TestNoKeyIsPrinted(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	m := b.ensure(t, "filter")
	_, issued, _, err := b.CA().IssueServer(t.Context(), "gw01", "filter")
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]string{
		"module key":  m.Key.Text(),
		"raw key":     fmt.Sprintf("%d", []byte(m.Key)),
		"device key":  fmt.Sprintf("%d", []byte(b.cfg.Credential.Key)),
		"master key":  fmt.Sprintf("%d", b.vault.master),
		"private key": "BEGIN PRIVATE",
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, thing := range []any{b.Registry, m, b.cfg, b.vault, issued, b.CA()} {
			text := fmt.Sprintf(verb, thing)
			for name, secret := range secrets {
				if strings.Contains(text, secret) {
					t.Errorf("%s of %T shows the %s", verb, thing, name)
				}
			}
		}
	}
}

// golden documents are what version 1 of each document looked like when it was released; they are never edited.
func TestDocumentsOfVersion1AreStillRead(t *testing.T) {
	t.Parallel()
	docs := &memory{docs: map[string][]byte{}}
	names, err := os.ReadDir("testdata/v1")
	if err != nil || len(names) < 4 {
		t.Fatalf("golden documents: got %d, %v, want at least 4", len(names), err)
	}
	for _, name := range names {
		raw, err := os.ReadFile("testdata/v1/" + name.Name())
		if err != nil {
			t.Fatal(err)
		}
		docs.docs["identity/"+strings.ReplaceAll(strings.TrimSuffix(name.Name(), ".json"), "+", "/")] = raw
	}
	before := maps.Clone(docs.docs)
	b := open(t, func(c *Config) { c.Docs = docs })
	m, ok := b.Module("filter")
	if !ok || m.Generation != "123456789012345678" || m.Key.Text() != "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=" || !m.OnHub {
		t.Errorf("module: got %v %s %v %v", m.ID, m.Generation, m.OnHub, ok)
	}
	if got := b.Retired(); len(got) != 1 || got[0].ID.Module != "old" {
		t.Errorf("retired: got %v, want old", got)
	}
	plain, err := b.Open("filter", "123456789012345678", []byte("iv"), goldenSealed)
	if err != nil || string(plain) != "golden" {
		t.Errorf("open: got %q, %v, want golden", plain, err)
	}
	if !maps.EqualFunc(before, docs.docs, bytes.Equal) {
		t.Error("opening changed a document")
	}
}
