package deployment

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"sort"
	"strings"
)

// treatment says what becomes of a member of createOptions.
type treatment uint8

const (
	applied   treatment = iota // has the effect it has with Docker
	satisfied                  // asks for what every sandbox does anyway
	hint                       // accepted without effect, and noted
	refused                    // asks for what a sandbox does not give
	group                      // an object of members that are in the table themselves
)

func (t treatment) String() string {
	return [...]string{"applied", "satisfied", "hint", "refused", "group"}[t]
}

// option is one member of Docker's container-create body.
type option struct {
	path      string // as Docker documents it; matching ignores case, as Docker does
	treatment treatment
	meaning   string // what it means here, or why it is refused and what to use instead
	apply     func(p *parser, path string, value any, s *Settings)
}

// options is every member that is known. A member that is not here is refused. A value that is null, false, 0 or empty counts as
// absent. MANIFEST.md shows the table to readers.
var options = []option{
	{"ArgsEscaped", hint, "concerns Windows only", nil},
	{"AttachStderr", satisfied, "output always goes to the module's log", nil},
	{"AttachStdin", hint, "a module has no standard input", nil},
	{"AttachStdout", satisfied, "output always goes to the module's log", nil},
	{"Cmd", applied, "arguments in place of the image's", applyCmd},
	{"Domainname", refused, "a sandbox has no domain name", nil},
	{"Entrypoint", applied, "program in place of the image's", applyEntrypoint},
	{"Env", applied, "environment on top of the image's; env of the manifest wins", applyEnv},
	{"ExposedPorts", hint, "documents the image; nothing is published", nil},
	{"Healthcheck", applied, "a command run inside (CMD, CMD-SHELL) in place of the image's, with Docker's times; NONE runs neither, and without Test it is the image's at another pace; a module that fails it is ended and started again, unless its restartPolicy is never", applyHealthcheck},
	{"HostConfig", group, "", nil},
	{"HostConfig.Annotations", hint, "kept in the deployment", nil},
	{"HostConfig.AutoRemove", satisfied, "nothing of a sandbox is left when it ended", nil},
	{"HostConfig.Binds", applied, "named volumes only: \"name:/target[:ro]\"; paths of the host are refused", applyBinds},
	{"HostConfig.BlkioDeviceReadBps", refused, "disk bandwidth is limited for all disks alike: by the device's modules.io", nil},
	{"HostConfig.BlkioDeviceReadIOps", refused, "disk bandwidth is limited for all disks alike: by the device's modules.io", nil},
	{"HostConfig.BlkioDeviceWriteBps", refused, "disk bandwidth is limited for all disks alike: by the device's modules.io", nil},
	{"HostConfig.BlkioDeviceWriteIOps", refused, "disk bandwidth is limited for all disks alike: by the device's modules.io", nil},
	{"HostConfig.BlkioWeight", refused, "disk bandwidth is not shared by weight", nil},
	{"HostConfig.BlkioWeightDevice", refused, "disk bandwidth is not shared by weight", nil},
	{"HostConfig.CapAdd", refused, "a module has no capability; a device node comes by settings.hal of type sandbox", nil},
	{"HostConfig.CapDrop", satisfied, "every capability is dropped", nil},
	{"HostConfig.Cgroup", refused, "a sandbox has a control group of its own", nil},
	{"HostConfig.CgroupnsMode", applied, "\"private\" only", applyPrivate},
	{"HostConfig.CgroupParent", refused, "a sandbox has a control group of its own", nil},
	{"HostConfig.ConsoleSize", hint, "a module has no console", nil},
	{"HostConfig.CpuPeriod", applied, "with CpuQuota: the share of CPU time", applyNothing},
	{"HostConfig.CpuQuota", applied, "share of CPU time in CpuPeriod (100000)", applyNothing},
	{"HostConfig.CpuRealtimePeriod", refused, "modules get no real-time scheduling", nil},
	{"HostConfig.CpuRealtimeRuntime", refused, "modules get no real-time scheduling", nil},
	{"HostConfig.CpusetCpus", refused, "a module is not bound to cores; use NanoCpus", nil},
	{"HostConfig.CpusetMems", refused, "a module is not bound to memory nodes", nil},
	{"HostConfig.CpuShares", refused, "CPU is limited, not shared by weight; use NanoCpus", nil},
	{"HostConfig.DeviceCgroupRules", refused, "a device node comes by settings.hal of type sandbox", nil},
	{"HostConfig.DeviceRequests", refused, "a device node comes by settings.hal of type sandbox", nil},
	{"HostConfig.Devices", applied, "a node that the device's configuration names in [[hal.device]] and allows to the module; any other is refused by name", applyDevices},
	{"HostConfig.Dns", refused, "names are resolved by the host's own servers", nil},
	{"HostConfig.DnsOptions", refused, "names are resolved by the host's own servers", nil},
	{"HostConfig.DnsSearch", refused, "names are resolved by the host's own servers", nil},
	{"HostConfig.ExtraHosts", applied, "lines of /etc/hosts: \"name:address\"", applyExtraHosts},
	{"HostConfig.GroupAdd", refused, "a module has the groups of its User", nil},
	{"HostConfig.Init", refused, "the module's program is the first process of its sandbox", nil},
	{"HostConfig.IpcMode", applied, "\"private\" or \"none\" only", applyPrivate},
	{"HostConfig.Isolation", applied, "\"default\" only", applyPrivate},
	{"HostConfig.KernelMemory", hint, "counted in Memory", nil},
	{"HostConfig.Links", refused, "modules meet by routes and methods, not by addresses", nil},
	{"HostConfig.LogConfig", hint, "output always goes to the module's log here, which has its own bounds", nil},
	{"HostConfig.MaskedPaths", refused, "the masked paths of a sandbox cannot be changed", nil},
	{"HostConfig.Memory", applied, "memory limit in bytes, at least 1 MiB", applyMemory},
	{"HostConfig.MemoryReservation", hint, "only Memory limits", nil},
	{"HostConfig.MemorySwap", applied, "memory and swap together, in bytes; -1 is refused", applyMemorySwap},
	{"HostConfig.MemorySwappiness", hint, "the host decides", nil},
	{"HostConfig.Mounts", applied, "named volumes (\"volume\") and \"tmpfs\" on /tmp; \"bind\" is refused", applyMounts},
	{"HostConfig.NanoCpus", applied, "CPU limit in billionths of a core", applyNanoCpus},
	{"HostConfig.NetworkMode", applied, "\"none\", \"host\" or \"bridge\"; \"default\" and \"azure-iot-edge\" are none, or bridge with PortBindings", applyNetworkMode},
	{"HostConfig.OomKillDisable", refused, "a module over its memory limit is ended", nil},
	{"HostConfig.OomScoreAdj", hint, "each module has its own memory limit", nil},
	{"HostConfig.PidMode", refused, "a module sees its own processes only", nil},
	{"HostConfig.PidsLimit", applied, "limit of processes and threads; -1 is the device's default", applyPidsLimit},
	{"HostConfig.PortBindings", applied, "ports of the host that lead in; the module is on the bridge network then", applyPortBindings},
	{"HostConfig.Privileged", refused, "no module is privileged; a device node comes by settings.hal of type sandbox", nil},
	{"HostConfig.PublishAllPorts", refused, "ports are published one by one; use PortBindings", nil},
	{"HostConfig.ReadonlyPaths", refused, "the read-only paths of a sandbox cannot be changed", nil},
	{"HostConfig.ReadonlyRootfs", satisfied, "the root is read-only, unless StorageOpt asks otherwise", nil},
	{"HostConfig.RestartPolicy", hint, "the module's restartPolicy decides", nil},
	{"HostConfig.Runtime", refused, "there is one runtime", nil},
	{"HostConfig.SecurityOpt", applied, "\"no-new-privileges\" only, which always holds", applySecurityOpt},
	{"HostConfig.ShmSize", applied, "size of /dev/shm, and of /tmp, in bytes", applyShmSize},
	{"HostConfig.StorageOpt", applied, "\"size\" only: the root is writable then, and changes are kept in memory until the module ends", applyStorageOpt},
	{"HostConfig.Sysctls", refused, "a module cannot set kernel parameters", nil},
	{"HostConfig.Tmpfs", applied, "/tmp only, with size=", applyTmpfs},
	{"HostConfig.Ulimits", applied, "nofile only", applyUlimits},
	{"HostConfig.UsernsMode", refused, "a module always has its own user namespace", nil},
	{"HostConfig.UTSMode", refused, "a module has its own host name", nil},
	{"HostConfig.VolumeDriver", applied, "\"local\" only", applyPrivate},
	{"HostConfig.VolumesFrom", refused, "modules share no files", nil},
	{"Hostname", applied, "host name inside the sandbox", applyHostname},
	{"Image", hint, "settings.image decides", nil},
	{"Labels", applied, "kept with the module; a change restarts it", applyLabels},
	{"MacAddress", refused, "a sandbox has no network card", nil},
	{"NetworkDisabled", applied, "no network but loopback", applyNetworkDisabled},
	{"NetworkingConfig", group, "", nil},
	{"NetworkingConfig.EndpointsConfig", applied, "as NetworkMode, one endpoint without options", applyEndpoints},
	{"OnBuild", hint, "concerns the building of images", nil},
	{"OpenStdin", hint, "a module has no standard input", nil},
	{"Shell", hint, "concerns the building of images", nil},
	{"StdinOnce", hint, "a module has no standard input", nil},
	{"StopSignal", applied, "signal that asks the module to end", applyStopSignal},
	{"StopTimeout", applied, "seconds from the stop signal to SIGKILL", applyStopTimeout},
	{"Tty", hint, "output is a pipe, not a terminal", nil},
	{"User", applied, "\"user\" or \"user:group\" inside the sandbox", applyUser},
	{"Volumes", applied, "durable directories of the module", applyVolumes},
	{"WorkingDir", applied, "working directory, absolute", applyWorkingDir},
}

// optionOf finds a member by its path, whatever the case.
func optionOf(path string) (option, bool) {
	for i := range options {
		if strings.EqualFold(options[i].path, path) {
			return options[i], true
		}
	}
	return option{}, false
}

// create reads createOptions into s. Errors name the member below path.
func (p *parser) create(path, text string, s *Settings) {
	if text == "" || text == "null" {
		return
	}
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.UseNumber()
	const want = "Docker's container-create body as text"
	var body any
	if err := dec.Decode(&body); err != nil {
		p.fail(path, "no JSON: "+shorten(strings.ReplaceAll(err.Error(), "\n", " ")), want)
		return
	}
	members, ok := body.(map[string]any)
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		ok = false
	}
	if !ok {
		p.fail(path, "not one JSON object", want)
		return
	}
	p.createMembers(path, "", members, s)
	p.createCPU(path, members, s)
}

// createMembers walks over the members of one object of the body.
func (p *parser) createMembers(path, prefix string, members map[string]any, s *Settings) {
	keys := slices.Collect(maps.Keys(members))
	sort.Slice(keys, func(i, j int) bool {
		return cmp.Or(strings.Compare(strings.ToLower(keys[i]), strings.ToLower(keys[j])), strings.Compare(keys[i], keys[j])) < 0
	})
	for i, key := range keys {
		value, at := members[key], path+"."+key
		if i > 0 && strings.EqualFold(key, keys[i-1]) {
			p.fail(at, "given twice", "one of "+keys[i-1]+" and "+key)
		}
		o, known := optionOf(prefix + key)
		switch {
		case isUnset(value):
		case !known:
			p.fail(at, "no member of a container that is known here", "it left out")
		case o.treatment == refused:
			p.fail(at, "not available: "+o.meaning, "")
		case o.treatment == hint:
			p.note(at, "has no effect: "+o.meaning)
		case o.treatment == satisfied:
		case o.treatment == group:
			inner, ok := value.(map[string]any)
			if !ok {
				p.fail(at, kindOf(value), "an object")
				continue
			}
			p.createMembers(at, o.path+".", inner, s)
		default:
			o.apply(p, at, value, s)
		}
	}
}

// isUnset tells the values by which tools say that a member is not wanted.
func isUnset(value any) bool {
	switch v := value.(type) {
	case nil:
		return true
	case bool:
		return !v
	case json.Number:
		return v == "0"
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}
