package container

import (
	"io/fs"
	"os"
	"path/filepath"
)

// The accounts of a host view: programs look up who they are, and learn nothing
// about the host.
const (
	hostViewPasswd = "root:x:0:0:root:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
	hostViewGroup  = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"
	hostViewNames  = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n"
)

// hostDirs hold programs and libraries. On a merged-usr host all but the first
// are links into it.
var hostDirs = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}

// hostEtc is what programs and libraries of the host need of its /etc, and that
// holds no secret and no user data.
var hostEtc = []string{
	"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives",
	"/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted",
	"/etc/localtime", "/etc/timezone", "/etc/services", "/etc/protocols", "/etc/mime.types",
}

// hostView fills an empty root with a read-only view of the host.
func hostView(t *tree, image string, root *rootfs) error {
	for _, path := range append(append([]string(nil), hostDirs...), hostEtc...) {
		if err := show(t, path, root); err != nil {
			return err
		}
	}
	for _, d := range []string{"/var", "/home", "/root", "/mnt", "/opt", appDir} {
		t.mkdir(d)
	}
	t.link("../tmp", "/var/tmp")
	t.link("../run", "/var/run")
	t.write("/etc/passwd", hostViewPasswd)
	t.write("/etc/group", hostViewGroup)
	t.write("/etc/nsswitch.conf", hostViewNames)
	root.mounts = append(root.mounts, bind(image, appDir, readOnly))
	return nil
}

// show repeats a link of the host, or binds what is there. What is missing is
// left out.
func show(t *tree, path string, root *rootfs) error {
	st, err := os.Lstat(path)
	if err != nil {
		return nil //nolint:nilerr // the host has none
	}
	if st.Mode().Type() == fs.ModeSymlink {
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		if !filepath.IsAbs(target) && filepath.Dir(path) != "/" {
			target = filepath.Join(filepath.Dir(path), target)
		}
		t.link(target, path)
		return nil
	}
	if st.IsDir() {
		t.mkdir(path)
	} else {
		t.touch(path)
	}
	root.mounts = append(root.mounts, bind(path, path, readOnly))
	return nil
}
