package container

import (
	"fmt"
	"io"
	"os"
	"strings"

	mobyuser "github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// user is the module's, as seen inside.
type user struct {
	uid, gid int
	groups   []int
	home     string
}

// maxAccounts bounds what is read of an image's /etc/passwd and /etc/group.
const maxAccounts = 1 << 20

// lookupUser resolves Spec.User in the root's own files. They come from the
// image: they are opened below its directory only, whatever links it holds.
func lookupUser(s sandbox.Spec) (user, error) {
	var passwd, group io.Reader
	if s.Root.Kind == sandbox.Image {
		root, err := os.OpenRoot(s.Root.Image)
		if err != nil {
			return user{}, fmt.Errorf("open image: %w", err)
		}
		defer func() { _ = root.Close() }()
		// An image without these files is one whose users are numbers.
		if f := openAccounts(root, "etc/passwd"); f != nil {
			defer f.Close()
			passwd = io.LimitReader(f, maxAccounts)
		}
		if f := openAccounts(root, "etc/group"); f != nil {
			defer f.Close()
			group = io.LimitReader(f, maxAccounts)
		}
	} else {
		passwd, group = strings.NewReader(hostViewPasswd), strings.NewReader(hostViewGroup)
	}
	u, err := mobyuser.GetExecUser(s.User, nil, passwd, group)
	if err != nil {
		return user{}, fmt.Errorf("user %q: %w", s.User, err)
	}
	for _, id := range append([]int{u.Uid, u.Gid}, u.Sgids...) {
		if id < 0 || id >= sandbox.IDCount {
			return user{}, fmt.Errorf("user %q: id %d is not between 0 and %d, the ids a sandbox has", s.User, id, sandbox.IDCount-1)
		}
	}
	return user{uid: u.Uid, gid: u.Gid, groups: u.Sgids, home: u.Home}, nil
}

// openAccounts opens a regular file of the image, and nothing that could block.
func openAccounts(root *os.Root, name string) *os.File {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		_ = f.Close()
		return nil
	}
	return f
}
