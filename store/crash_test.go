package store

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// crashChild names the folder of the store that the killed process works on.
const crashChild = "SANDPIPER_STORE_CRASH_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashChild); dir != "" {
		runCrashChild(dir)
		return
	}
	os.Exit(m.Run())
}

// runCrashChild appends, reads, acknowledges and changes documents until it is
// killed. It says on standard output what it was promised, a line each: "A body"
// is stored, "D body" is delivered and about to be acknowledged, "P key value"
// is a document.
func runCrashChild(dir string) {
	s, err := Open(crashConfig(dir))
	if err != nil {
		fmt.Println("E", err)
		return
	}
	s.queue.tail.segmentBytes = minSegment
	go func() { fmt.Println("E", s.Run(context.Background())) }()
	run := os.Getpid()
	for p := range 3 {
		go func() {
			window := make(chan struct{}, 16)
			for i := 0; ; i++ {
				window <- struct{}{}
				body := fmt.Sprintf("%d/%d/%06d/%s", run, p, i, strings.Repeat("x", i%11*i%700))
				rec := Record{Body: []byte(body), Entries: []Entry{{Sink: "x", Priority: uint8(p)}, {Sink: "y"}}}
				s.Queue().Enqueue(rec, func(err error) {
					if err != nil {
						fmt.Println("E", err)
					}
					fmt.Println("A", body)
					<-window
				})
			}
		}()
	}
	go func() {
		for i := 0; ; i++ {
			key, value := fmt.Sprint("doc/", i%3), fmt.Sprint(time.Now().UnixNano())
			if err := s.Docs().Put(context.Background(), key, []byte(value)); err != nil {
				fmt.Println("E", err)
			}
			fmt.Println("P", key, value)
		}
	}()
	for at := (Cursor{}); ; {
		items, next, err := s.Queue().Peek("x", at, 50, 1<<16)
		if err != nil {
			fmt.Println("E", err)
			return
		}
		if len(items) == 0 {
			<-s.Queue().Ready("x")
		}
		for _, item := range items {
			fmt.Println("D", string(item.Body))
		}
		if err := s.Queue().Ack("x", items...); err != nil {
			fmt.Println("E", err)
		}
		at = next
	}
}

func crashConfig(dir string) Config {
	return Config{Dir: dir, MaxBytes: 512 << 20, MinFree: 1}
}

// promises is what killed children said they were promised.
type promises struct {
	stored    map[string]bool
	delivered map[string]bool
	documents map[string][]string // key → values, the last one is promised
}

// listen reads a child's lines until n of them came, kills it, and reads what
// it had still written.
func (p *promises) listen(t *testing.T, dir string, n int) {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), crashChild+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if n--; n == 0 {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		kind, rest, whole := strings.Cut(lines.Text(), " ")
		switch {
		case kind == "A":
			p.stored[rest] = true
		case kind == "D":
			p.delivered[rest] = true
		case kind == "P":
			key, value, _ := strings.Cut(rest, " ")
			p.documents[key] = append(p.documents[key], value)
		case n < 0 && !whole: // the line that the kill cut off
		default:
			t.Errorf("child: %s", lines.Text())
		}
	}
	if err := child.Wait(); err == nil {
		t.Error("the child ended by itself")
	}
}

// check opens the store that a killed child left.
func (p *promises) check(t *testing.T, s *Store) {
	t.Helper()
	if u := s.Usage(); u.DamagedFiles+u.DamagedDocuments > 0 || u.Recovered {
		t.Errorf("got %+v, want no damage from a killed process", u)
	}
	for key, values := range p.documents {
		got, err := s.Docs().Get(key)
		want := values[len(values)-1]
		if err != nil || string(got) < want {
			t.Errorf("%s: got %q, %v, want %q or what was written after it", key, got, err, want)
		}
		p.documents[key] = []string{string(got)}
	}
	for _, sink := range []string{"x", "y"} {
		here := map[string]bool{}
		last := map[string]string{} // of a producer
		for _, item := range all(t, s, sink) {
			body := string(item.Body)
			parts := strings.SplitN(body, "/", 4)
			producer := parts[0] + "/" + parts[1]
			if here[body] || last[producer] >= parts[2] {
				t.Errorf("%s: %.30q came behind number %s", sink, body, last[producer])
			}
			here[body], last[producer] = true, parts[2]
		}
		for body := range p.stored {
			if !here[body] && (sink == "y" || !p.delivered[body]) {
				t.Errorf("%s: %.30q was acknowledged and is lost", sink, body)
			}
		}
	}
	if u := s.Usage(); u.DamagedRecords > 0 {
		t.Errorf("got %d damaged records, want none", u.DamagedRecords)
	}
}

// all reads everything that a sink has, past the bound of what may be handed
// out, and leaves the sink as it was.
func all(t *testing.T, s *Store, sink string) (items []Item) {
	t.Helper()
	k := s.queue.ledger.sink(sink)
	for i := range k.lanes {
		l := &k.lanes[i]
		for after := uint64(0); ; {
			look, ok := s.queue.ledger.look(l, after)
			if !ok {
				break
			}
			err := s.queue.shelf.view(look.seg, func(r *reader) error {
				r.scan(look.id, l.seed, look.from, look.to, func(seq uint64, val value, ok bool) bool {
					if !ok {
						t.Errorf("%s: record %d is damaged", sink, seq)
					}
					items = append(items, Item{Seq: seq, Sink: sink, Body: append([]byte{}, val.body...)})
					return true
				})
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			after = look.to
		}
	}
	return items
}

// Field report Azure/iotedge#577 and promise 1: a killed process loses nothing
// that it acknowledged.
func TestAKilledProcessLosesNothing(t *testing.T) {
	t.Parallel()
	const kills, stores = 60, 3
	for n := range uint64(stores) {
		t.Run(fmt.Sprint("store ", n), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(n, 3))
			dir := t.TempDir()
			p := &promises{documents: map[string][]string{}}
			for range kills / stores {
				p.stored, p.delivered = map[string]bool{}, map[string]bool{}
				p.listen(t, dir, 1+rng.IntN(1<<rng.IntN(13)))
				s, err := Open(crashConfig(dir))
				if err != nil {
					t.Fatal(err)
				}
				p.check(t, s)
				for _, sink := range []string{"x", "y"} { // the next child starts afresh
					if _, err := s.Queue().Purge(t.Context(), sink); err != nil {
						t.Error(err)
					}
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
