package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// Exec runs one more process in the sandbox, under the same walls: namespaces,
// user ids, cgroup, seccomp, no capabilities.
func (i *Instance) Exec(ctx context.Context, c sandbox.Command) (sandbox.Exit, error) {
	if len(c.Args) == 0 {
		return sandbox.Exit{}, i.err("exec", errors.New("there is no program to run"))
	}
	switch {
	case i.isDestroyed():
		return sandbox.Exit{}, i.err("exec", sandbox.ErrDestroyed)
	case i.over():
		return sandbox.Exit{}, i.err("exec", sandbox.ErrEnded)
	}
	if err := ctx.Err(); err != nil {
		return sandbox.Exit{}, i.err("exec", err)
	}
	inside, err := libcontainer.Load(i.r.instancesDir(), i.id)
	if err != nil {
		return sandbox.Exit{}, i.err("exec", err)
	}
	// Names of users are looked up in the sandbox's own root.
	root := sandbox.Root{Kind: sandbox.Image, Image: inside.Config().Rootfs}
	user, err := lookupUser(sandbox.Spec{User: c.User, Root: root})
	if err != nil {
		return sandbox.Exit{}, i.err("exec", err)
	}
	p := &libcontainer.Process{
		Args: c.Args, Env: environment(c.Env), Cwd: c.Cwd,
		UID: user.uid, GID: user.gid, AdditionalGroups: user.groups,
	}
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	var terminal *console
	var out outlet
	defer out.finish(ctx) // of a start that failed, too
	if c.Terminal != nil {
		if terminal, err = newConsole(p, c.Terminal); err != nil {
			return sandbox.Exit{}, i.err("exec", err)
		}
		life, end := context.WithCancel(ctx)
		defer terminal.close(end)
		ctx = life
	} else {
		closeStdin, err := feed(p, c.Stdin)
		if err != nil {
			return sandbox.Exit{}, i.err("exec", err)
		}
		defer closeStdin()
		if err := out.streams(p, c); err != nil {
			return sandbox.Exit{}, i.err("exec", err)
		}
	}
	if err := inside.Start(p); err != nil {
		reapStrays()
		return sandbox.Exit{}, i.err("exec", oneLine(err))
	}
	out.started()
	if terminal != nil {
		if err := terminal.attach(ctx, c); err != nil {
			killGroup(p)
			_, _ = p.Wait() // how it ended does not matter
			return sandbox.Exit{}, i.err("exec", err)
		}
	}
	stop := context.AfterFunc(ctx, func() { killGroup(p) })
	defer stop()
	ps, err := p.Wait()
	if ps == nil {
		return sandbox.Exit{}, i.err("exec", err)
	}
	status, _ := ps.Sys().(syscall.WaitStatus)
	return newExit(status, true, time.Now()), nil
}

// killGroup kills a process, which leads a group of its own, and the children that it has in it. Gone is as good.
func killGroup(p *libcontainer.Process) {
	pid, err := p.Pid()
	if err == nil && p.Signal(syscall.Signal(0)) == nil { // not reaped: the number is still its own
		_ = unix.Kill(-pid, unix.SIGKILL)
	}
	_ = p.Signal(syscall.SIGKILL)
}

// feed gives a process its standard input through a pipe of ours: it may end
// without having read all, and the reader may never end.
func feed(p *libcontainer.Process, in io.Reader) (func(), error) {
	if in == nil {
		return func() {}, nil
	}
	if f, ok := in.(*os.File); ok {
		p.Stdin = f
		return func() {}, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	p.Stdin = r
	go func() { // ends with in, or with the first write after the process
		_, _ = io.Copy(w, in)
		_ = w.Close()
	}()
	return func() { _ = r.Close() }, nil
}
