package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
	"github.com/sandpiper-edge/sandpiper/sandbox"
	"github.com/sandpiper-edge/sandpiper/sandbox/sandboxtest"
)

var edgeAgent = iothub.ID{Device: "edge1", Module: deployment.EdgeAgent}

// device is a device in memory: what survives the agent, and one agent after another. It lives in a synctest bubble.
type device struct {
	t    *testing.T
	dir  string
	docs *memory
	fake *sandboxtest.Fake
	boot int
	skew time.Duration // of the device's clock

	mu     sync.Mutex // guards what follows
	events []string
	absent map[string]error // image reference → why it cannot be fetched
	broken map[string]error // module → why its doors do not open
	full   map[string][]string
	checks map[string]*deployment.ImageHealth // image reference → its own check
	ill    bool                               // what a check of a module finds
	driver chan struct{}                      // closed: programs that hang in the kernel end
	cut    string                             // step at which the agent ends
	cancel func()                             // ends it

	s     *Supervisor
	twins *twin.Keeper
	end   func()
}

func newDevice(t *testing.T) *device {
	t.Helper()
	d := &device{t: t, dir: t.TempDir(), docs: newMemory(), absent: map[string]error{}, broken: map[string]error{}, full: map[string][]string{}, driver: make(chan struct{})}
	d.fake = &sandboxtest.Fake{Program: d.program}
	d.docs.put = func(key string) { d.step("put " + key) }
	return d
}

// program runs until SIGTERM, or as its arguments say: "exit CODE DURATION", "slow DURATION" (after SIGTERM), "deaf", "hang".
func (d *device) program(ctx context.Context, p *sandboxtest.Process) int {
	var due <-chan time.Time
	code := 0
	if p.Args[0] == "check" {
		if p.Args[1] == "slow" {
			<-time.After(2 * time.Second)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.events = append(d.events, "check "+strings.Join(p.Args[1:], " "))
		if d.ill {
			return 1
		}
		return 0
	}
	if p.Args[0] == "hang" { // not even SIGKILL ends it
		<-d.driver
		return 0
	}
	if p.Args[0] == "exit" {
		code, _ = strconv.Atoi(p.Args[1])
		after, _ := time.ParseDuration(p.Args[2])
		due = time.After(after)
	}
	for {
		select {
		case <-ctx.Done():
			return 0
		case <-due:
			return code
		case s := <-p.Signals:
			d.note(fmt.Sprintf("signal %s %s", p.Instance().ID(), sandbox.SignalName(s)))
			switch p.Args[0] {
			case "deaf":
			case "slow":
				after, _ := time.ParseDuration(p.Args[1])
				due = time.After(after)
			default:
				return 0
			}
		}
	}
}

func (d *device) note(event string) {
	d.mu.Lock()
	d.events = append(d.events, event)
	d.mu.Unlock()
	d.step(event)
}

// step ends the agent where a test wants it to.
func (d *device) step(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cut == name {
		d.cut = ""
		d.cancel()
	}
}

// cutAt has the agent end at the next such step.
func (d *device) cutAt(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut = name
}

// happened gives the events since it was asked last.
func (d *device) happened() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	events := d.events
	d.events = nil
	return events
}

func (d *device) expect(what string, want ...string) {
	d.t.Helper()
	if got := d.happened(); !slices.Equal(got, want) {
		d.t.Errorf("%s: got\n  %s\nwant\n  %s", what, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// Fetch and Keep make the device the supervisor's Images.
func (d *device) Fetch(ctx context.Context, m deployment.Module) (Image, error) {
	d.note("fetch " + m.Settings.Image)
	if m.Settings.Image == "endless" {
		<-ctx.Done()
		return Image{}, ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.absent[m.Settings.Image]; err != nil {
		return Image{}, err
	}
	return Image{Digest: "sha256:" + m.Settings.Image, Args: []string{"run"}, Health: d.checks[m.Settings.Image]}, nil
}

func (d *device) Keep(_ context.Context, digests []string) error {
	for _, digest := range digests {
		if !strings.HasPrefix(digest, "sha256:") {
			d.t.Errorf("keep %q", digest)
		}
	}
	return nil
}

// Spec, Open, Shut and Removed make it the supervisor's Hosting.
func (d *device) Spec(_ context.Context, s Seat) (sandbox.Spec, error) {
	d.step("spec " + s.Module.Name)
	args := s.Image.Args
	if len(s.Module.Settings.Args) > 0 {
		args = s.Module.Settings.Args
	}
	return sandbox.Spec{ID: s.Module.Name, Args: args, IDBase: s.IDBase, Root: sandbox.Root{Image: "/image"}}, nil
}

func (d *device) Open(_ context.Context, s Seat, inst sandbox.Instance) error {
	d.note("open " + s.Module.Name)
	d.mu.Lock()
	defer d.mu.Unlock()
	if inst.ID() != s.Module.Name {
		d.t.Errorf("open %s for instance %s", s.Module.Name, inst.ID())
	}
	return d.broken[s.Module.Name]
}

func (d *device) Command(s Seat, args []string) sandbox.Command {
	return sandbox.Command{Args: args, Env: s.Image.Env, Cwd: s.Image.Cwd, User: s.Image.User}
}

func (d *device) Shut(string) {}

func (d *device) Removed(_ context.Context, module string) error {
	d.note("removed " + module)
	return nil
}

// start begins an agent.
func (d *device) start() {
	d.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	twins, err := twin.NewKeeper(d.docs)
	if err != nil {
		d.t.Fatal(err)
	}
	s, err := New(Config{
		Device: "edge1", Runtime: d.fake, Images: d, Hosting: d, Twins: twins, Docs: d.docs, IDBase: 1 << 20, Full: d.fullOf,
		LogDir: d.dir + "/log", FIFODir: d.dir + "/fifo", Boot: "boot " + strconv.Itoa(d.boot),
		Now: func() time.Time { return time.Now().Add(d.skew) }, Age: d.age,
		Commit: func(digest string) error { d.note("commit " + digest); return nil },
	})
	if err != nil {
		d.t.Fatal(err)
	}
	s.openSource = func(string) (source, error) { return &mute{stop: make(chan struct{})}, nil }
	d.mu.Lock()
	d.s, d.twins, d.cancel = s, twins, cancel
	d.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	d.end = func() {
		cancel()
		if err := <-done; err != nil {
			d.t.Errorf("run: %v", err)
		}
	}
	synctest.Wait()
}

// restart ends the agent and begins another one.
func (d *device) restart() {
	d.t.Helper()
	d.end()
	d.start()
}

// reboot ends everything and begins another agent.
func (d *device) reboot() {
	d.t.Helper()
	d.end()
	d.destroyAll()
	d.boot++
	d.start()
}

// age is that of a process, by a clock that nobody sets.
func (d *device) age(pid int) (time.Duration, error) {
	for _, i := range d.fake.Instances() {
		if i.Pid() == pid {
			return time.Since(i.Started()), nil
		}
	}
	return 0, os.ErrNotExist
}

func (d *device) destroyAll() {
	for _, i := range d.fake.Instances() {
		_ = i.Destroy()
	}
}

// finish ends the agent and the modules, as a bubble must not be left with goroutines.
func (d *device) finish() {
	d.end()
	d.destroyAll()
}

// deploy sets the modules and waits until nothing moves.
func (d *device) deploy(modules map[string]string) int64 {
	d.t.Helper()
	var members []string
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		members = append(members, fmt.Sprintf("%q:%s", name, modules[name]))
	}
	return d.desire(`{"schemaVersion":"1.1","modules":{` + strings.Join(members, ",") + `}}`)
}

func (d *device) desire(section string) int64 {
	d.t.Helper()
	change, err := d.twins.SetDesired(d.t.Context(), edgeAgent, json.RawMessage(section))
	if err != nil {
		d.t.Fatal(err)
	}
	synctest.Wait()
	return change.Version
}

// wanted is a module of a deployment: a sandbox that runs this program under this policy; more holds further members.
func wanted(image, policy, more, settings string, args ...string) string {
	list, _ := json.Marshal(args)
	if len(args) == 0 {
		list = []byte("[]")
	}
	return fmt.Sprintf(`{"type":"sandbox","restartPolicy":%q,"settings":{"image":%q,"args":%s%s}%s}`, policy, image, list, settings, more)
}

// statuses is what every module does, in one line.
func (d *device) statuses() string {
	var out []string
	for _, m := range d.s.Modules() {
		out = append(out, m.Wanted.Name+" "+m.Status)
	}
	return strings.Join(out, ", ")
}

func (d *device) expectStatuses(want string) {
	d.t.Helper()
	if got := d.statuses(); got != want {
		d.t.Errorf("modules: got %s, want %s", got, want)
	}
}

// module is one module as an operator sees it.
func (d *device) module(name string) Module {
	d.t.Helper()
	for _, m := range d.s.Modules() {
		if m.Wanted.Name == name {
			return m
		}
	}
	d.t.Fatalf("no module %s", name)
	return Module{}
}

func (d *device) expectCode(want int, text string) {
	d.t.Helper()
	if _, got := d.s.Deployment(); got.Code != want || !strings.Contains(got.Description, text) {
		d.t.Errorf("deployment: got %+v, want code %d with %q", got, want, text)
	}
}

// pass lets time go by.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// live runs a test on a device with virtual time.
func live(t *testing.T, test func(t *testing.T, d *device)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		d.start()
		test(t, d)
		d.finish()
	})
}

// mute is output of a module that prints nothing.
type mute struct {
	once sync.Once
	stop chan struct{}
}

func (m *mute) wait() (int, error)                     { <-m.stop; return 0, nil }
func (m *mute) move(*os.File, int64, int) (int, error) { return 0, nil }
func (m *mute) read([]byte) (int, error)               { return 0, nil }
func (m *mute) interrupt()                             { m.once.Do(func() { close(m.stop) }) }
func (m *mute) close() error                           { return nil }

// fill says which places of a module on disk are full.
func (d *device) fill(module string, places ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full[module] = places
}

func (d *device) fullOf(module string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.full[module]
}

// ails says what checks of modules find from now on.
func (d *device) ails(ill bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ill = ill
}
