package image

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mountEntry is one line of /proc/self/mountinfo.
type mountEntry struct {
	id, device, root, point, kind string
	options                       []string
}

// name tells this mount from every other since the boot, as far as mountinfo can.
func (m mountEntry) name() string { return m.id + " " + m.device + " " + m.kind }

// sealed reports a whole EROFS mounted the way Mount does it.
func (m mountEntry) sealed() bool {
	return m.kind == "erofs" && m.root == "/" && slices.Contains(m.options, "ro") &&
		slices.Contains(m.options, "nodev") && slices.Contains(m.options, "nosuid")
}

// mountsAt returns what is mounted at a directory, bottom first.
func mountsAt(dir string) ([]mountEntry, error) {
	// The kernel prints paths without links; the directory above a mount point is not one.
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		return nil, fmt.Errorf("find mounts: %w", err)
	}
	if parent, err = filepath.Abs(parent); err != nil {
		return nil, fmt.Errorf("find mounts: %w", err)
	}
	dir = filepath.Join(parent, filepath.Base(dir))
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find mounts: %w", err)
	}
	defer func() { _ = f.Close() }()
	all, err := parseMountinfo(f)
	if err != nil {
		return nil, fmt.Errorf("find mounts: %w", err)
	}
	var here []mountEntry
	for _, m := range all {
		if m.point == dir {
			here = append(here, m)
		}
	}
	return here, nil
}

// parseMountinfo reads the format of proc_pid_mountinfo(5): id, parent, device, root, point, options, any number of tags, "-",
// type, source, super options.
func parseMountinfo(r io.Reader) ([]mountEntry, error) {
	var all []mountEntry
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), " ")
		dash := slices.Index(fields, "-")
		if dash < 6 || len(fields) < dash+3 {
			return nil, fmt.Errorf("mountinfo line %q", lines.Text())
		}
		all = append(all, mountEntry{
			id: fields[0], device: fields[2], root: unescape(fields[3]), point: unescape(fields[4]),
			options: strings.Split(fields[5], ","), kind: fields[dash+1],
		})
	}
	return all, lines.Err()
}

// unescape undoes the octal escapes that mountinfo writes for blanks and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return c >= '0' && c <= '7' }
