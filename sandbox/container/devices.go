package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	devices "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// grants are the device nodes of one sandbox and the rules that let it use them.
type grants struct {
	mounts []*configs.Mount
	rules  []*devices.Rule
}

// common are the devices every sandbox has, with the mode everybody has on them.
var common = []struct {
	path         string
	major, minor int64
}{
	{"/dev/null", 1, 3},
	{"/dev/zero", 1, 5},
	{"/dev/full", 1, 7},
	{"/dev/random", 1, 8},
	{"/dev/urandom", 1, 9},
	{"/dev/tty", 5, 0},
}

// commonNodes are bound from the host by libcontainer.
func commonNodes() []*devices.Device {
	var nodes []*devices.Device
	for _, c := range common {
		nodes = append(nodes, &devices.Device{Path: c.path, FileMode: 0o666, Rule: devices.Rule{
			Type: devices.CharDevice, Major: c.major, Minor: c.minor, Permissions: "rw", Allow: true,
		}})
	}
	return nodes
}

// commonRules deny everything, and then allow the common devices and the
// sandbox's own terminals.
func commonRules() []*devices.Rule {
	rules := []*devices.Rule{{Type: devices.WildcardDevice, Major: devices.Wildcard, Minor: devices.Wildcard, Permissions: "rwm"}}
	for _, n := range commonNodes() {
		rules = append(rules, &n.Rule)
	}
	const ptmx, pts = 5, 136
	return append(rules,
		&devices.Rule{Type: devices.CharDevice, Major: ptmx, Minor: 2, Permissions: "rw", Allow: true},
		&devices.Rule{Type: devices.CharDevice, Major: pts, Minor: devices.Wildcard, Permissions: "rw", Allow: true},
	)
}

// makeNodes makes a node of the module's own for each granted device: the
// host's node belongs to root or to a group that has no number inside. They lie
// on a tmpfs of ours, since /run forbids device nodes.
func (r *Runtime) makeNodes(s sandbox.Spec, u user) (grants, error) {
	if len(s.Devices) == 0 {
		return grants{}, nil
	}
	if err := r.mountNodes(); err != nil { // until the last instance is forgotten
		return grants{}, fmt.Errorf("device nodes: %w", err)
	}
	dir := filepath.Join(r.nodesDir(), s.ID)
	if err := os.RemoveAll(dir); err != nil { // of a dead agent
		return grants{}, err
	}
	if err := os.Mkdir(dir, 0o711); err != nil {
		return grants{}, err
	}
	var g grants
	for n, d := range s.Devices {
		node := filepath.Join(dir, strconv.Itoa(n))
		rule, err := makeNode(node, d)
		if err != nil {
			return grants{}, fmt.Errorf("device %s: %w", d.Path, err)
		}
		if err := os.Chown(node, int(s.IDBase)+u.uid, int(s.IDBase)+u.gid); err != nil {
			return grants{}, fmt.Errorf("device %s: %w", d.Path, err)
		}
		target := d.Target
		if target == "" {
			target = d.Path
		}
		g.rules = append(g.rules, rule)
		g.mounts = append(g.mounts, &configs.Mount{
			Source: node, Destination: target, Device: "bind",
			Flags: unix.MS_BIND | unix.MS_NOSUID | unix.MS_NOEXEC,
		})
	}
	return g, nil
}

// makeNode makes a second node of the host's device, for its owner only.
func makeNode(node string, d sandbox.Device) (*devices.Rule, error) {
	access, mode := d.Access, uint32(0)
	if access == "" {
		access = "rw"
	}
	for _, c := range access {
		mode |= map[rune]uint32{'r': 0o400, 'w': 0o200}[c]
	}
	st, err := os.Stat(d.Path)
	if err != nil {
		return nil, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || sys.Mode&unix.S_IFMT != unix.S_IFCHR && sys.Mode&unix.S_IFMT != unix.S_IFBLK {
		return nil, errors.New("is no device node")
	}
	if err := unix.Mknod(node, sys.Mode&unix.S_IFMT|mode, int(sys.Rdev)); err != nil {
		return nil, err
	}
	if err := os.Chmod(node, fs.FileMode(mode)); err != nil {
		return nil, err
	}
	kind := devices.CharDevice
	if sys.Mode&unix.S_IFMT == unix.S_IFBLK {
		kind = devices.BlockDevice
	}
	rdev := uint64(sys.Rdev) //nolint:unconvert // 32 bits wide on some architectures
	return &devices.Rule{
		Type: kind, Major: int64(unix.Major(rdev)), Minor: int64(unix.Minor(rdev)),
		Permissions: devices.Permissions(access), Allow: true,
	}, nil
}

// mountNodes mounts the tmpfs for the nodes if it is not there.
func (r *Runtime) mountNodes() error {
	dir := r.nodesDir()
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	r.mu.Lock() // two first devices at once
	defer r.mu.Unlock()
	mounted, err := isMountPoint(dir)
	if err != nil || mounted {
		return err
	}
	return unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0711,size=64k")
}

func isMountPoint(dir string) (bool, error) {
	var here, above unix.Stat_t
	if err := unix.Lstat(dir, &here); err != nil {
		return false, err
	}
	if err := unix.Lstat(filepath.Dir(dir), &above); err != nil {
		return false, err
	}
	return here.Dev != above.Dev, nil
}

// removeNodes removes what makeNodes made; it need not be there.
func (r *Runtime) removeNodes(id string) error {
	return os.RemoveAll(filepath.Join(r.nodesDir(), id))
}
