package container

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
	"github.com/sandpiper-edge/sandpiper/sandbox/container/entry"
)

// Config of Runtime.
type Config struct {
	// StateDir is the agent's runtime directory, on a tmpfs. Default
	// /run/sandpiper. It and its parents must be searchable by everybody, since
	// modules are nobody in particular; nothing in it is readable that matters.
	StateDir string
	// Cgroup is the group below which each instance has its own, relative to the
	// root of each hierarchy. Default "sandpiper", with a suffix when StateDir is
	// not the default one, so that two agents never clear each other's away.
	Cgroup string
	// Logger takes what libcontainer has to say. Default: discard.
	Logger *slog.Logger
}

const defaultStateDir = "/run/sandpiper"

func (c Config) withDefaults() Config {
	if c.StateDir == "" {
		c.StateDir = defaultStateDir
	}
	c.StateDir = filepath.Clean(c.StateDir)
	if c.Cgroup == "" {
		c.Cgroup = "sandpiper"
		if c.StateDir != defaultStateDir {
			h := fnv.New32a()
			_, _ = h.Write([]byte(c.StateDir)) // a hash never fails
			c.Cgroup += fmt.Sprintf("-%08x", h.Sum32())
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Runtime makes sandboxes with libcontainer.
type Runtime struct {
	cfg      Config
	exits    *Ledger
	features sandbox.Features
	quick    bool     // sandboxes begin in sandbox/container/entry
	groups   []string // see v1Groups

	mu        sync.Mutex                   // guards what follows
	instances map[string]*Instance         // nil value: being made
	exe       *os.File                     // see seal
	programs  map[string][]unix.SockFilter // see filter
}

// New checks that sandboxes can be made here and prepares StateDir. It needs to
// be root.
func New(cfg Config) (*Runtime, error) {
	cfg = cfg.withDefaults()
	if os.Geteuid() != 0 {
		return nil, errors.New("sandboxes: only root can make them; run the agent as root")
	}
	if !filepath.IsAbs(cfg.StateDir) {
		return nil, fmt.Errorf("sandboxes: state directory %q is not an absolute path", cfg.StateDir)
	}
	if err := prepareStateDir(cfg.StateDir); err != nil {
		return nil, fmt.Errorf("sandboxes: %w", err)
	}
	if err := mountCgroup(cfg.Logger); err != nil {
		return nil, fmt.Errorf("sandboxes: %w", err)
	}
	routeLogs(cfg.Logger)
	r := &Runtime{
		cfg: cfg, exits: OpenLedger(cfg.StateDir),
		features: probe(), groups: v1Groups(),
		instances: map[string]*Instance{},
	}
	r.quick = r.features.PivotRoot && r.features.UserNamespace && entry.Supported()
	return r, nil
}

// prepareStateDir makes the directories and checks that a sandbox's users can
// reach their roots.
func prepareStateDir(dir string) error {
	for _, d := range []string{dir, filepath.Join(dir, "roots")} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return err
		}
		if err := addSearch(d); err != nil {
			return err
		}
	}
	for d := filepath.Dir(dir); d != "/"; d = filepath.Dir(d) {
		st, err := os.Stat(d)
		if err != nil {
			return err
		}
		if st.Mode()&0o001 == 0 {
			return fmt.Errorf("modules cannot reach %s, because %s is not searchable by others; chmod o+x it or choose another run_dir", dir, d)
		}
	}
	return os.MkdirAll(filepath.Join(dir, "instances"), 0o700)
}

func addSearch(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if st.Mode()&0o011 == 0o011 {
		return nil
	}
	return os.Chmod(dir, st.Mode().Perm()|0o011)
}

// Probe tells what the kernel offers.
func (r *Runtime) Probe() sandbox.Features {
	f := r.features
	f.Degraded = append([]string(nil), f.Degraded...)
	return f
}

func (r *Runtime) instancesDir() string          { return filepath.Join(r.cfg.StateDir, "instances") }
func (r *Runtime) stateOf(id string) string      { return filepath.Join(r.instancesDir(), id) }
func (r *Runtime) rootOf(id string) string       { return filepath.Join(r.cfg.StateDir, "roots", id) }
func (r *Runtime) nodesDir() string              { return filepath.Join(r.cfg.StateDir, "nodes") }
func (r *Runtime) cgroupOf(id string) string     { return filepath.Join("/", r.cfg.Cgroup, id) }
func (r *Runtime) logger(id string) *slog.Logger { return r.cfg.Logger.With("instance", id) }

// Create makes the sandbox; its program waits for Start.
func (r *Runtime) Create(ctx context.Context, s sandbox.Spec) (sandbox.Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("sandbox %s: create: %w", s.ID, err)
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if !r.features.UserNamespace {
		return nil, fmt.Errorf("sandbox %s: create: %w: there are no user namespaces; build the kernel with CONFIG_USER_NS", s.ID, sandbox.ErrUnsupported)
	}
	if floor := int64(slowFloor); !r.quick && s.Limits.Memory > 0 && s.Limits.Memory < floor {
		return nil, fmt.Errorf("sandbox %s: create: limits.memory: %d bytes is below the floor of %d (8 MiB) on a kernel before 5.12, where the start itself needs 3 MiB; raise it", s.ID, s.Limits.Memory, floor)
	}
	if !r.reserve(s.ID) {
		return nil, fmt.Errorf("sandbox %s: create: %w", s.ID, sandbox.ErrExists)
	}
	i, err := r.create(ctx, s)
	if err != nil {
		// What failed in the middle may have left its group: its processes are dying, and libcontainer waits for them a third of a second.
		err = errors.Join(err, clearCgroup(r.cgroupOf(s.ID)))
		r.forget(s.ID)
		return nil, fmt.Errorf("sandbox %s: create: %w", s.ID, oneLine(err))
	}
	r.mu.Lock()
	r.instances[s.ID] = i
	r.mu.Unlock()
	return i, nil
}

func (r *Runtime) reserve(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, taken := r.instances[id]; taken {
		return false
	}
	if _, err := os.Lstat(r.stateOf(id)); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	r.instances[id] = nil
	return true
}

// forget frees an id; with the last one goes what all of them shared.
func (r *Runtime) forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.instances, id)
	r.tidyLocked()
}

// tidyLocked removes what instances share, once there is none.
func (r *Runtime) tidyLocked() {
	if len(r.instances) > 0 { // or being made: they are in the map as well
		return
	}
	for _, h := range hierarchies() {
		_ = unix.Rmdir(filepath.Join(h, r.cfg.Cgroup)) // not empty: Recover's affair
	}
	_ = unix.Unmount(r.nodesDir(), unix.UMOUNT_NOFOLLOW) // not mounted, mostly
}

// create makes root, cgroup, namespaces and the waiting process, and takes all
// of it back when a step does not work.
func (r *Runtime) create(ctx context.Context, s sandbox.Spec) (_ *Instance, err error) {
	undo := func(f func() error) {
		if err != nil {
			err = errors.Join(err, f())
		}
	}
	user, err := lookupUser(s)
	if err != nil {
		return nil, err
	}
	if r.quick {
		return r.enter(s, user)
	}
	root, err := r.makeRoot(s, user, nil)
	defer undo(func() error { return r.removeRoot(s.ID) })
	defer root.close()
	if err != nil {
		return nil, err
	}
	devices, err := r.makeNodes(s, user)
	defer undo(func() error { return r.removeNodes(s.ID) })
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := libcontainer.Create(r.instancesDir(), s.ID, r.config(s, root, devices))
	if err != nil {
		return nil, err
	}
	defer undo(c.Destroy)
	p, err := r.process(s, user)
	if err != nil {
		return nil, err
	}
	err = c.Start(&p.Process)
	p.close()
	if err != nil {
		return nil, err
	}
	return r.adoptContainer(c, &p.Process)
}

// oneLine keeps an error's chain, puts its text on one line, and leaves out words of libcontainer that name nothing an operator has.
func oneLine(err error) error { return flat{err} }

type flat struct{ error }

func (f flat) Unwrap() error { return f.error }
func (f flat) Error() string {
	return strings.NewReplacer("\n", "; ", "unable to start container process: ", "", " set in config.json", "").Replace(strings.TrimSpace(f.error.Error()))
}

// process is what libcontainer runs first, with the agent's side of its streams.
type process struct {
	libcontainer.Process
	logs []*os.File
}

func (p *process) close() {
	for _, f := range p.logs {
		_ = f.Close() // the module has its own
	}
}

// openLog opens a FIFO for the module. It is made the module's own: else it
// could not open /dev/stdout.
func (p *process) openLog(path string, s sandbox.Spec, u user) (*os.File, error) {
	f, err := sandbox.OpenLogWriter(path)
	if err != nil {
		return nil, err
	}
	p.logs = append(p.logs, f)
	if err := f.Chown(int(s.IDBase)+u.uid, int(s.IDBase)+u.gid); err != nil {
		return nil, fmt.Errorf("give log to module: %w", err)
	}
	return f, nil
}

func (r *Runtime) process(s sandbox.Spec, u user) (_ *process, err error) {
	p := &process{Process: libcontainer.Process{
		Init: true, Args: s.Args, Env: environment(s.Env), Cwd: cwd(s),
		UID: u.uid, GID: u.gid, AdditionalGroups: u.groups,
	}}
	if s.LogPath == "" {
		return p, nil
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	f, err := p.openLog(s.LogPath, s, u)
	if err != nil {
		return nil, err
	}
	p.Stdout, p.Stderr = f, f
	if s.ErrPath != "" {
		f, err := p.openLog(s.ErrPath, s, u)
		if err != nil {
			return nil, err
		}
		p.Stderr = f
	}
	return p, nil
}

// slowFloor is the lowest memory limit, in bytes, of a start through libcontainer's
// init, a Go program that runs inside the limit.
const slowFloor = 8 << 20

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment adds PATH if it is missing; libcontainer adds HOME.
func environment(env []string) []string {
	for _, e := range env {
		if strings.HasPrefix(e, "PATH=") {
			return env
		}
	}
	return append([]string{defaultPath}, env...)
}

func cwd(s sandbox.Spec) string {
	switch {
	case s.Cwd != "":
		return s.Cwd
	case s.Root.Kind == sandbox.HostView:
		return appDir
	default:
		return "/"
	}
}

// hasNetwork tells whether the sandbox has a network namespace of its own.
func hasNetwork(c *configs.Config) bool { return c.Namespaces.Contains(configs.NEWNET) }

var (
	_ sandbox.Runtime   = (*Runtime)(nil)
	_ sandbox.Instance  = (*Instance)(nil)
	_ sandbox.Execer    = (*Instance)(nil)
	_ sandbox.Refuser   = (*Instance)(nil)
	_ sandbox.Exhauster = (*Instance)(nil)
)
