package workload

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/agent/route"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
)

var filter = iothub.ID{Device: "edge1", Module: "filter"}

// keys does secret work that can be seen through.
type keys struct{}

func (keys) Sign(module string, data []byte) ([]byte, error) { return mac(module, data), nil }

func mac(module string, data []byte) []byte {
	h := hmac.New(sha256.New, []byte("key of "+module))
	h.Write(data)
	return h.Sum(nil)
}

func (keys) Seal(module, generation string, vector, plaintext []byte) ([]byte, error) {
	return fmt.Appendf(nil, "%s|%s|%s|%s", module, generation, vector, plaintext), nil
}

func (keys) Open(module, generation string, vector, ciphertext []byte) ([]byte, error) {
	plain, ok := bytes.CutPrefix(ciphertext, fmt.Appendf(nil, "%s|%s|%s|", module, generation, vector))
	if !ok {
		return nil, errors.New("does not open")
	}
	return plain, nil
}

type authority struct{}

func (authority) IssueServer(_ context.Context, commonName, module string) ([]byte, iothub.Secret, time.Time, error) {
	return []byte("chain of " + commonName + " " + module), "key", time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), nil
}

func (authority) IssueIdentity(_ context.Context, module string) ([]byte, iothub.Secret, time.Time, error) {
	return []byte("chain of " + module), "key", time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), nil
}

func (authority) TrustBundle() []byte { return []byte("-----BEGIN CERTIFICATE-----") }

// published is one message that the broker took.
type published struct {
	id     iothub.ID
	output string
	bag    string
	body   string
}

// delivery is one message that the broker has for an input, and what became of it.
type delivery struct {
	input   string
	message message.Message
	result  chan error
}

// broker is a scripted one.
type broker struct {
	mu      sync.Mutex
	taken   []published
	refuse  func(n int) error // for the n-th publish, from 0
	promise route.Promise     // of every publish
	call    func(target iothub.ID, req iothub.MethodRequest) (iothub.MethodResult, error)
	handler chan func(ctx context.Context, req iothub.MethodRequest) iothub.MethodResult // receives what HandleMethod is given, nil when it is cancelled
	inputs  chan delivery
}

func (b *broker) Publish(_ context.Context, id iothub.ID, output string, bag iothub.Bag, body []byte) (route.Promise, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		if err := b.refuse(len(b.taken)); err != nil {
			return route.Promise{}, err
		}
	}
	b.taken = append(b.taken, published{id, output, bag.String(), string(body)})
	return b.promise, nil
}

func (b *broker) seen() []published {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.taken)
}

func (b *broker) Inputs(ctx context.Context, _ iothub.ID, fn func(string, message.Message) error) error {
	for {
		select {
		case d := <-b.inputs:
			d.result <- fn(d.input, d.message)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *broker) Call(_ context.Context, target iothub.ID, req iothub.MethodRequest) (iothub.MethodResult, error) {
	return b.call(target, req)
}

func (b *broker) HandleMethod(_ iothub.ID, fn func(context.Context, iothub.MethodRequest) iothub.MethodResult) func() {
	b.handler <- fn
	return func() { b.handler <- nil }
}

// memory is twin.Docs in a map.
type memory struct {
	mu   sync.Mutex
	docs map[string][]byte
	fail error
}

func (m *memory) Get(key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.docs[key], nil
}

func (m *memory) Put(_ context.Context, key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.docs[key] = value
	return nil
}

func (m *memory) Keys(prefix string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := slices.Sorted(maps.Keys(m.docs))
	return slices.DeleteFunc(keys, func(k string) bool { return !strings.HasPrefix(k, prefix) }), nil
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

func (l *logs) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// bed is a served socket with everything around it.
type bed struct {
	path   string
	client *http.Client
	module *Client
	broker *broker
	twins  *twin.Keeper
	docs   *memory
	logs   *logs
	health chan Health
	stop   context.CancelFunc
	ended  chan error
}

func serve(t *testing.T, edit func(*Caller)) *bed {
	t.Helper()
	b := &bed{
		broker: &broker{handler: make(chan func(context.Context, iothub.MethodRequest) iothub.MethodResult, 4), inputs: make(chan delivery)},
		docs:   &memory{docs: map[string][]byte{}}, logs: &logs{}, health: make(chan Health, 1), ended: make(chan error, 1),
	}
	var err error
	if b.twins, err = twin.NewKeeper(b.docs); err != nil {
		t.Fatal(err)
	}
	server, err := New(Config{
		Generation: func(module string) (string, bool) { return "637", module == "filter" },
		Keys:       keys{}, Authority: authority{}, Broker: b.broker, Twins: b.twins,
		Modules: func() []Module {
			return []Module{
				{Name: "filter", Type: "docker", Status: "running", Started: time.Unix(1700000000, 0)},
				{Name: "done", Type: "native", Status: "stopped", Note: "finished", Exited: time.Unix(1700000100, 0), Code: 3},
			}
		},
		Health: func(_ iothub.ID, h Health) { b.health <- h },
		Logger: slog.New(slog.NewTextHandler(b.logs, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "wl") //nolint:usetesting // t.TempDir is too long a path for a socket
	if err != nil {
		t.Fatal(err)
	}
	b.path = filepath.Join(dir, "m.sock")
	l, err := net.Listen("unix", b.path)
	if err != nil {
		t.Fatal(err)
	}
	caller := Caller{ID: filter, UIDBase: uint32(os.Getuid()), UIDCount: 1}
	if edit != nil {
		edit(&caller)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	b.stop = cancel
	go func() { b.ended <- server.Serve(ctx, l, caller) }()
	b.module = Dial(b.path)
	b.client = b.module.http
	t.Cleanup(func() {
		b.module.Close()
		cancel()
		if err := <-b.ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		_ = os.RemoveAll(dir)
	})
	return b
}

// ask makes a request and returns status, content type and body.
func (b *bed) ask(t *testing.T, method, path, body string, header ...string) (int, string, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://module"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := b.client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(raw)
}

func sameJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("got %q, which is not JSON: %v", got, err)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	gt, _ := json.Marshal(g)
	wt, _ := json.Marshal(w)
	if string(gt) != string(wt) {
		t.Errorf("got  %s\nwant %s", gt, wt)
	}
}
