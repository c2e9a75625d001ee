package container

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"

	devices "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// Bundle writes dir/config.json, an OCI bundle of the sandbox that Create would
// make of s: the same root, mounts, namespaces, ids, limits and seccomp filter.
// It is for holding this runtime beside others; the agent never calls it. The
// returned func removes the root again.
func (r *Runtime) Bundle(s sandbox.Spec, dir string) (remove func() error, err error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	user, err := lookupUser(s)
	if err != nil {
		return nil, err
	}
	root, err := r.makeRoot(s, user, nil)
	remove = func() error {
		err := errors.Join(r.removeRoot(s.ID), r.removeNodes(s.ID))
		r.forget(s.ID)
		return err
	}
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	grants, err := r.makeNodes(s, user)
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	spec := ociSpec(r.config(s, root, grants))
	spec.Process.Args, spec.Process.Env, spec.Process.Cwd = s.Args, environment(s.Env), cwd(s)
	spec.Process.User = specs.User{UID: uint32(user.uid), GID: uint32(user.gid)}
	raw, err := json.MarshalIndent(spec, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o644)
	}
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	return remove, nil
}

// ociSpec puts a configuration into the words of the OCI runtime specification.
func ociSpec(c *configs.Config) *specs.Spec {
	oom := c.OomScoreAdj
	linux := &specs.Linux{
		CgroupsPath:   c.Cgroups.Path,
		MaskedPaths:   c.MaskPaths,
		ReadonlyPaths: c.ReadonlyPaths,
		Resources:     ociResources(c),
		Seccomp:       ociSeccomp(c.Seccomp),
	}
	for _, n := range c.Namespaces {
		linux.Namespaces = append(linux.Namespaces, specs.LinuxNamespace{Type: namespaceNames[n.Type]})
	}
	for _, m := range c.UIDMappings {
		ids := specs.LinuxIDMapping{ContainerID: uint32(m.ContainerID), HostID: uint32(m.HostID), Size: uint32(m.Size)}
		linux.UIDMappings = append(linux.UIDMappings, ids)
		linux.GIDMappings = append(linux.GIDMappings, ids)
	}
	spec := &specs.Spec{
		Version:  "1.0.2",
		Hostname: c.Hostname,
		Root:     &specs.Root{Path: c.Rootfs, Readonly: c.Readonlyfs},
		Linux:    linux,
		Process: &specs.Process{
			NoNewPrivileges: c.NoNewPrivileges, OOMScoreAdj: oom,
			Capabilities: &specs.LinuxCapabilities{},
		},
	}
	for _, l := range c.Rlimits {
		spec.Process.Rlimits = append(spec.Process.Rlimits, specs.POSIXRlimit{Type: rlimitNames[l.Type], Hard: l.Hard, Soft: l.Soft})
	}
	for _, m := range c.Mounts {
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: m.Destination, Type: m.Device, Source: m.Source, Options: ociOptions(m)})
	}
	return spec
}

var namespaceNames = map[configs.NamespaceType]specs.LinuxNamespaceType{
	configs.NEWUSER: specs.UserNamespace, configs.NEWNS: specs.MountNamespace, configs.NEWPID: specs.PIDNamespace,
	configs.NEWIPC: specs.IPCNamespace, configs.NEWUTS: specs.UTSNamespace, configs.NEWNET: specs.NetworkNamespace,
	configs.NEWCGROUP: specs.CgroupNamespace,
}

var rlimitNames = map[int]string{
	unix.RLIMIT_NOFILE: "RLIMIT_NOFILE", unix.RLIMIT_CORE: "RLIMIT_CORE",
	unix.RLIMIT_MEMLOCK: "RLIMIT_MEMLOCK", unix.RLIMIT_NPROC: "RLIMIT_NPROC",
}

// ociOptions are the flags and the data of a mount.
func ociOptions(m *configs.Mount) []string {
	var options []string
	for _, o := range []struct {
		flag int
		name string
	}{
		{unix.MS_NOSUID, "nosuid"}, {unix.MS_NODEV, "nodev"}, {unix.MS_NOEXEC, "noexec"}, {unix.MS_RDONLY, "ro"},
	} {
		if m.Flags&o.flag != 0 {
			options = append(options, o.name)
		}
	}
	if m.Flags&unix.MS_BIND != 0 {
		kind := "bind"
		if m.Flags&unix.MS_REC != 0 {
			kind = "rbind"
		}
		options = append(options, kind)
	}
	if m.RecAttr != nil {
		for _, o := range []struct {
			attr uint64
			name string
		}{
			{unix.MOUNT_ATTR_RDONLY, "rro"}, {unix.MOUNT_ATTR_NOSUID, "rnosuid"}, {unix.MOUNT_ATTR_NODEV, "rnodev"},
		} {
			if m.RecAttr.Attr_set&o.attr != 0 {
				options = append(options, o.name)
			}
		}
	}
	if m.Data != "" {
		options = append(options, strings.Split(m.Data, ",")...)
	}
	return options
}

func ociResources(c *configs.Config) *specs.LinuxResources {
	from := c.Cgroups.Resources
	r := &specs.LinuxResources{}
	if from.Memory > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &from.Memory}
		if from.MemorySwap > 0 {
			r.Memory.Swap = &from.MemorySwap
		}
	}
	if from.PidsLimit != nil {
		r.Pids = &specs.LinuxPids{Limit: from.PidsLimit}
	}
	if from.CpuQuota > 0 {
		r.CPU = &specs.LinuxCPU{Quota: &from.CpuQuota, Period: &from.CpuPeriod}
	}
	for _, rule := range from.Devices {
		d := specs.LinuxDeviceCgroup{Allow: rule.Allow, Access: string(rule.Permissions)}
		if rule.Type != devices.WildcardDevice {
			d.Type = string(rule.Type)
			d.Major = wildcard(rule.Major)
			d.Minor = wildcard(rule.Minor)
		}
		r.Devices = append(r.Devices, d)
	}
	return r
}

// wildcard leaves out a number that stands for all.
func wildcard(n int64) *int64 {
	if n == devices.Wildcard {
		return nil
	}
	return &n
}

func ociSeccomp(from *configs.Seccomp) *specs.LinuxSeccomp {
	if from == nil {
		return nil
	}
	actions := map[configs.Action]specs.LinuxSeccompAction{configs.Allow: specs.ActAllow, configs.Errno: specs.ActErrno}
	operators := map[configs.Operator]specs.LinuxSeccompOperator{configs.EqualTo: specs.OpEqualTo, configs.MaskEqualTo: specs.OpMaskedEqual}
	arches := map[string]specs.Arch{"amd64": specs.ArchX86_64, "x86": specs.ArchX86, "arm64": specs.ArchAARCH64, "arm": specs.ArchARM}
	to := &specs.LinuxSeccomp{DefaultAction: actions[from.DefaultAction]}
	for _, a := range from.Architectures {
		to.Architectures = append(to.Architectures, arches[a])
	}
	plain := specs.LinuxSyscall{Action: specs.ActAllow}
	for _, call := range from.Syscalls {
		if call.Action == configs.Allow && len(call.Args) == 0 {
			plain.Names = append(plain.Names, call.Name)
			continue
		}
		entry := specs.LinuxSyscall{Names: []string{call.Name}, Action: actions[call.Action], ErrnoRet: call.ErrnoRet}
		for _, a := range call.Args {
			entry.Args = append(entry.Args, specs.LinuxSeccompArg{Index: a.Index, Value: a.Value, ValueTwo: a.ValueTwo, Op: operators[a.Op]})
		}
		to.Syscalls = append(to.Syscalls, entry)
	}
	to.Syscalls = append(to.Syscalls, plain)
	return to
}
