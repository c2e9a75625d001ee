package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// device is an ext4 on a loop device of its own, so that what is written to it can be counted where the kernel counts it.
type device struct {
	dir  string // where it is mounted
	loop string // /dev/loopN
	home string
}

// deviceMissing says why no device can be made here; "" = one can.
func deviceMissing() string {
	if os.Geteuid() != 0 {
		return "not root: a private ext4 cannot be mounted, so bytes and flushes of the device are NOT measured"
	}
	for _, tool := range []string{"losetup", "mkfs.ext4", "mount", "umount"} {
		if _, err := exec.LookPath(tool); err != nil {
			return tool + " is not installed, so bytes and flushes of the device are NOT measured"
		}
	}
	return ""
}

func newDevice(bytes int64) (d *device, err error) {
	d = &device{}
	if d.home, err = os.MkdirTemp("", "sandpiper-bench-dev-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	image := filepath.Join(d.home, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return d, err
	}
	if err := os.Truncate(image, bytes); err != nil {
		return d, err
	}
	if d.loop, err = tool("losetup", "--find", "--show", "--direct-io=on", image); err != nil {
		return d, err
	}
	if _, err := tool("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", d.loop); err != nil {
		return d, err
	}
	dir := filepath.Join(d.home, "mnt")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return d, err
	}
	if _, err := tool("mount", "-t", "ext4", "-o", "noatime", d.loop, dir); err != nil {
		return d, err
	}
	d.dir = dir
	_, err = tool("losetup", "-d", d.loop) // it is in use: the kernel gives it back with the mount, whatever ends that
	return d, err
}

// close leaves nothing behind.
func (d *device) close() error {
	var all error
	if d.dir != "" {
		_, err := tool("umount", d.dir)
		all = errors.Join(all, err)
	} else if d.loop != "" {
		_, err := tool("losetup", "-d", d.loop)
		all = errors.Join(all, err)
	}
	return errors.Join(all, os.RemoveAll(d.home))
}

func tool(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, text)
	}
	return text, nil
}

// traffic is what a device was asked to do.
type traffic struct{ bytes, flushes float64 }

func (t traffic) minus(u traffic) traffic { return traffic{t.bytes - u.bytes, t.flushes - u.flushes} }

// count reads the device's counters after everything dirty has reached it.
func (d *device) count() (traffic, error) {
	f, err := os.Open(d.dir)
	if err != nil {
		return traffic{}, err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return traffic{}, fmt.Errorf("sync %s: %w", d.dir, err)
	}
	file := filepath.Join("/sys/block", filepath.Base(d.loop), "stat")
	raw, err := os.ReadFile(file)
	if err != nil {
		return traffic{}, err
	}
	fields := strings.Fields(string(raw)) // Documentation/block/stat.rst: 7th sectors written, 16th flushes
	if len(fields) < 16 {
		return traffic{}, fmt.Errorf("%s has %d fields; flushes are counted since Linux 5.5", file, len(fields))
	}
	sectors, err := strconv.ParseFloat(fields[6], 64)
	if err != nil {
		return traffic{}, err
	}
	flushes, err := strconv.ParseFloat(fields[15], 64)
	return traffic{sectors * 512, flushes}, err
}

// measured runs work on an engine on a fresh device and returns what the device was asked to do meanwhile. What the engine needs
// once (its files, its first flushes) is done before by warm.
func measured(name string, bytes int64, warm, work func(engine) error, closeCounts bool) (t traffic, err error) {
	d, err := newDevice(bytes)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	dir := filepath.Join(d.dir, "e")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return t, err
	}
	e, err := engines[name](dir)
	if err != nil {
		return t, err
	}
	open := true
	defer func() {
		if open {
			err = errors.Join(err, e.close())
		}
	}()
	if err := warm(e); err != nil {
		return t, err
	}
	before, err := d.count()
	if err != nil {
		return t, err
	}
	if err := work(e); err != nil {
		return t, err
	}
	if closeCounts {
		open = false
		if err := e.close(); err != nil {
			return t, err
		}
	}
	after, err := d.count()
	return after.minus(before), err
}
