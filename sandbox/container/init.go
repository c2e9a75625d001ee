package container

import (
	"os"
	"runtime"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // enters the namespaces before Go starts
)

// init keeps the process's first thread for main's goroutine. Threads that enter
// a sandbox's namespaces end afterwards, but the first one cannot end: it would
// be parked in there for good, hold the namespace and its mounts, and be what
// /proc/self shows. Only an init function is certain to run on it.
//
// It also tells the library of groups how device rules are set; it has no other
// place for that, and refuses them without.
//
//nolint:gochecknoinits // see above
func init() {
	runtime.LockOSThread()
	cgroups.DevicesSetV1, cgroups.DevicesSetV2 = setDeviceList, setDeviceFilter
}

// Init hands over to libcontainer when this process is the inside of a new
// sandbox, and then never returns; otherwise it does nothing. main calls it
// before anything else, and so does TestMain of tests that make sandboxes.
func Init() {
	if len(os.Args) > 1 && os.Args[1] == "init" && os.Getenv("_LIBCONTAINER_INITPIPE") != "" {
		libcontainer.Init()
	}
}
