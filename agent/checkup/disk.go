package checkup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// disk tells whether state can be written and run files are where a power cut takes them away.
func (c Config) disk(_ context.Context, say func(Level, string, string)) {
	dir, s, err := standing(c.StateDir)
	if err != nil {
		say(Bad, c.StateDir+": "+err.Error(), "mount the partition of the state, or set state_dir")
	} else {
		c.state(say, dir, s)
	}
	dir, s, err = standing(c.RunDir)
	switch {
	case err != nil:
		say(Bad, c.RunDir+": "+err.Error(), "mount a tmpfs, or set run_dir")
	case !inMemory(s):
		say(Warning, dir+" is not a tmpfs: sockets and logs are written to the disk", "mount a tmpfs there, or set run_dir")
	default:
		say(Well, dir+" is in memory", "")
	}
	c.flash(say)
}

func (c Config) state(say func(Level, string, string), dir string, s unix.Statfs_t) {
	unit := int64(s.Bsize) //nolint:unconvert // int32 on some processors
	free, size := int64(s.Bavail)*unit, int64(s.Blocks)*unit
	what := fmt.Sprintf("%s has %d of %d MiB free", dir, free>>20, size>>20)
	switch {
	case s.Flags&unix.ST_RDONLY != 0:
		say(Bad, dir+" is mounted read-only: nothing is acknowledged", "see the kernel's log for the error that made it so; check the file system, mount it rw")
	case inMemory(s):
		say(Bad, dir+" is in memory: queues, twins and keys are gone after a power cut", "set state_dir to a partition that stays")
	case s.Files > 0 && s.Ffree == 0:
		say(Bad, dir+" has no file left", "remove what is not needed, or make the file system with more inodes")
	case free < c.MinFree:
		say(Bad, fmt.Sprintf("%s, and %d are for others (store.min_free): queues cannot grow", what, c.MinFree>>20), "free some, or lower store.min_free")
	default:
		say(Well, what, "")
	}
}

// flash tells how much of their life eMMC chips have used, as they say it themselves: in tenths, 11 beyond. Source: JEDEC JESD84-B51,
// EXT_CSD 267 to 269, which the kernel shows as life_time and pre_eol_info.
func (c Config) flash(say func(Level, string, string)) {
	chips, err := filepath.Glob(filepath.Join(c.Root, "sys/block/mmcblk*/device/life_time"))
	if err != nil {
		return
	}
	for _, file := range chips {
		name := filepath.Base(filepath.Dir(filepath.Dir(file)))
		used := int64(0)
		for word := range strings.FieldsSeq(readLine(file)) {
			if n, err := strconv.ParseInt(word, 0, 16); err == nil {
				used = max(used, n)
			}
		}
		ending := readLine(filepath.Dir(file), "pre_eol_info")
		switch {
		case used == 0:
			say(Unknown, name+" does not tell how worn it is", "")
		case used >= 11 || ending == "0x03":
			say(Bad, name+" has used up its life, by its own count", "replace it before it fails; keep an export of the queue (sandpiper queue export)")
		case used >= 9 || ending == "0x02":
			say(Warning, fmt.Sprintf("%s has used %d %% of its life", name, used*10), "plan its replacement; sandpiper status says who writes how much")
		default:
			say(Well, fmt.Sprintf("%s has used at most %d %% of its life", name, used*10), "")
		}
	}
}

// inMemory tells file systems that are gone with the power.
func inMemory(s unix.Statfs_t) bool {
	kind := uint32(s.Type) // int32 on some processors, with the same bits
	return kind == unix.TMPFS_MAGIC || kind == unix.RAMFS_MAGIC
}

// standing is the file system of dir, or of what would hold it once it is made.
func standing(dir string) (string, unix.Statfs_t, error) {
	var s unix.Statfs_t
	for {
		err := unix.Statfs(dir, &s)
		if up := filepath.Dir(dir); err != nil && os.IsNotExist(err) && up != dir {
			dir = up
			continue
		}
		return dir, s, err
	}
}
