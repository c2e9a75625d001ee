package deployment

import (
	"encoding/json"
	"strings"
	"testing"
)

// withOptions parses a docker module with these createOptions.
func withOptions(options string) (Module, []string, error) {
	text, err := json.Marshal(options)
	if err != nil {
		return Module{}, nil, err
	}
	a, err := ParseAgent([]byte(deploymentOf(`{"type":"docker","settings":{"image":"x","createOptions":` + string(text) + `}}`)))
	if err != nil {
		return Module{}, nil, err
	}
	return a.Modules[0], a.Notes, nil
}

func TestEachRefusedOptionIsRefusedByName(t *testing.T) {
	t.Parallel()
	found := 0
	for _, o := range options {
		if o.treatment != refused {
			continue
		}
		found++
		body := map[string]any{}
		at := body
		parts := strings.Split(o.path, ".")
		for _, part := range parts[:len(parts)-1] {
			inner := map[string]any{}
			at[part], at = inner, inner
		}
		at[parts[len(parts)-1]] = []any{"x"}
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = withOptions(string(text))
		if got, want := refusal(t, err), "modules.m.settings.createOptions."+o.path+": not available: "+o.meaning; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		at[parts[len(parts)-1]] = []any{}
		text, _ = json.Marshal(body)
		if _, _, err := withOptions(string(text)); err != nil {
			t.Errorf("%s unset: got %v, want it accepted", o.path, err)
		}
	}
	if found < 30 {
		t.Errorf("only %d refused options found", found)
	}
}

func TestOptionsAreApplied(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ options, want string }{
		"nothing":                {``, `{"image":"x"}`},
		"null":                   {`null`, `{"image":"x"}`},
		"an empty object":        {`{}`, `{"image":"x"}`},
		"what tools leave unset": {`{"Tty":false,"HostConfig":{"Privileged":false,"CapAdd":null,"Binds":[],"CpuShares":0,"Dns":[]}}`, `{"image":"x"}`},
		"program and place": {
			`{"Entrypoint":["/bin/a"],"Cmd":["b","c"],"WorkingDir":"/w/","User":"1000:5","Hostname":"h1","Env":["A=1","B="],"StopSignal":"SIGINT","Labels":{"k":"v"}}`,
			`{"image":"x","env":{"A":"1","B":""},"user":"1000:5","create":{"entrypoint":["/bin/a"],"cmd":["b","c"],"workingDir":"/w","hostname":"h1","labels":{"k":"v"},"stopSignal":"SIGINT"}}`,
		},
		"a program as one word":       {`{"Entrypoint":"/bin/a"}`, `{"image":"x","create":{"entrypoint":["/bin/a"]}}`},
		"limits":                      {`{"HostConfig":{"Memory":67108864,"MemorySwap":134217728,"NanoCpus":1500000000,"PidsLimit":50,"ShmSize":33554432,"Ulimits":[{"Name":"nofile","Soft":1,"Hard":2048}]}}`, `{"image":"x","limits":{"memory":67108864,"swap":67108864,"cpu":1500,"pids":50,"files":2048,"tmp":33554432}}`},
		"a share of CPU":              {`{"HostConfig":{"CpuPeriod":50000,"CpuQuota":25000}}`, `{"image":"x","limits":{"cpu":500}}`},
		"a share of the usual period": {`{"HostConfig":{"CpuQuota":200000}}`, `{"image":"x","limits":{"cpu":2000}}`},
		"no limit of processes":       {`{"HostConfig":{"PidsLimit":-1}}`, `{"image":"x"}`},
		"the network of the host":     {`{"HostConfig":{"NetworkMode":"host"},"NetworkingConfig":{"EndpointsConfig":{"host":{}}}}`, `{"image":"x","network":1}`},
		"the network of IoT Edge":     {`{"HostConfig":{"NetworkMode":"azure-iot-edge"},"NetworkingConfig":{"EndpointsConfig":{"azure-iot-edge":{}}}}`, `{"image":"x"}`},
		"the endpoint alone":          {`{"NetworkingConfig":{"EndpointsConfig":{"host":null}}}`, `{"image":"x","network":1}`},
		"case does not count":         {`{"env":["A=1"],"hostConfig":{"memory":67108864,"MemorySwap":67108864,"nanocpus":500000000,"cpuquota":null}}`, `{"image":"x","env":{"A":"1"},"limits":{"memory":67108864,"cpu":500}}`},
		"volumes": {
			`{"Volumes":{"/var/lib/x":{}},"HostConfig":{"Binds":["data:/data","cfg:/cfg:ro,z"],"Mounts":[{"Type":"volume","Source":"v","Target":"/v","ReadOnly":true},{"Type":"tmpfs","Target":"/tmp"}]}}`,
			`{"image":"x","create":{"volumes":[{"name":"data","target":"/data"},{"name":"cfg","target":"/cfg","readOnly":true},{"name":"v","target":"/v","readOnly":true},{"name":"at-var-lib-x","target":"/var/lib/x"}]}}`,
		},
		"tmpfs and hosts": {
			`{"HostConfig":{"Tmpfs":{"/tmp":"rw,size=64m"},"ExtraHosts":["plc:10.0.0.7","six:[fd00::1]"],"SecurityOpt":["no-new-privileges"],"IpcMode":"private"}}`,
			`{"image":"x","limits":{"tmp":67108864},"create":{"hosts":[{"name":"plc","addr":"10.0.0.7"},{"name":"six","addr":"fd00::1"}]}}`,
		},
		"a writable layer": {`{"HostConfig":{"StorageOpt":{"size":"16m"}}}`, `{"image":"x","writable":16777216}`},
		"device nodes": {
			`{"HostConfig":{"Devices":[{"PathOnHost":"/dev/ttyUSB0","PathInContainer":"/dev/ttyUSB0","CgroupPermissions":"rwm"},{"PathOnHost":"/dev/hidraw0","PathInContainer":"/dev/scale","CgroupPermissions":"r"}]}}`,
			`{"image":"x","create":{"devices":[{"path":"/dev/ttyUSB0","write":true},{"path":"/dev/hidraw0","target":"/dev/scale"}]}}`,
		},
		"what a sandbox does anyway": {`{"AttachStdout":true,"HostConfig":{"CapDrop":["ALL"],"ReadonlyRootfs":true,"AutoRemove":true}}`, `{"image":"x"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, notes, err := withOptions(c.options)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(m.Settings)
			if err != nil || string(got) != c.want || len(notes) != 0 {
				t.Errorf("got  %s, %v, notes %q\nwant %s", got, err, notes, c.want)
			}
		})
	}
}

func TestHintsAreNoted(t *testing.T) {
	t.Parallel()
	m, notes, err := withOptions(`{"Tty":true,"ExposedPorts":{"80/tcp":{}},"HostConfig":{"LogConfig":{"Type":"json-file"},"RestartPolicy":{"Name":"always"}},"StopTimeout":3}`)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(notes, "\n")
	want := `modules.m.settings.createOptions.ExposedPorts: has no effect: documents the image; nothing is published
modules.m.settings.createOptions.HostConfig.LogConfig: has no effect: output always goes to the module's log here, which has its own bounds
modules.m.settings.createOptions.HostConfig.RestartPolicy: has no effect: the module's restartPolicy decides
modules.m.settings.createOptions.Tty: has no effect: output is a pipe, not a terminal`
	if got != want || m.Settings.StopTimeout.Seconds() != 3 {
		t.Errorf("got\n%s\n%v, want\n%s", got, m.Settings.StopTimeout, want)
	}
}

func TestOptionsAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ options, want string }{
		"a list":                  {`[]`, `: not one JSON object; want Docker's container-create body as text`},
		"text behind":             {`{} x`, `: not one JSON object; want Docker's container-create body as text`},
		"an unknown member":       {`{"HostConfig":{"Teleport":true}}`, `.HostConfig.Teleport: no member of a container that is known here; want it left out`},
		"HostConfig as text":      {`{"HostConfig":"x"}`, `.HostConfig: text "x"; want an object`},
		"a path of the host":      {`{"HostConfig":{"Binds":["/var/run/docker.sock:/var/run/docker.sock"]}}`, `.HostConfig.Binds[0]: path "/var/run/docker.sock" of the host is not available; want a named volume, "name:/target"`},
		"a relative host path":    {`{"HostConfig":{"Binds":["../etc:/x"]}}`, `.HostConfig.Binds[0]: path "../etc" of the host is not available; want a named volume, "name:/target"`},
		"a bind mount":            {`{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/etc","Target":"/etc"}]}}`, `.HostConfig.Mounts[0]: a mount of type "bind" on "/etc" is not available; want type "volume", or "tmpfs" on /tmp`},
		"a volume on /proc":       {`{"HostConfig":{"Binds":["v:/proc/x"]}}`, `.HostConfig.Binds[0]: target "/proc/x" belongs to the sandbox itself; want another directory`},
		"a volume over the door":  {`{"HostConfig":{"Binds":["v:/a/../run/sandpiper"]}}`, `.HostConfig.Binds[0]: target "/run/sandpiper" belongs to the sandbox itself; want another directory`},
		"two volumes on a target": {`{"HostConfig":{"Binds":["v:/a","w:/a/"]}}`, `.HostConfig.Binds[1]: target "/a" is used twice; want one volume per target`},
		"a bind without target":   {`{"HostConfig":{"Binds":["v"]}}`, `.HostConfig.Binds[0]: "v"; want "name:/target" or "name:/target:ro"`},
		"a foreign network":       {`{"HostConfig":{"NetworkMode":"container:x"}}`, `.HostConfig.NetworkMode: network "container:x" is not available; want none, host or bridge`},
		"a fixed address":         {`{"NetworkingConfig":{"EndpointsConfig":{"host":{"IPAMConfig":{"IPv4Address":"1.2.3.4"}}}}}`, `.NetworkingConfig.EndpointsConfig.host.IPAMConfig: not available: endpoints have no options`},
		"two networks":            {`{"HostConfig":{"NetworkMode":"host"},"NetworkingConfig":{"EndpointsConfig":{"none":{}}}}`, `.NetworkingConfig.EndpointsConfig.none: set beside NetworkMode host; want one of them`},
		"little memory":           {`{"HostConfig":{"Memory":524288}}`, `.HostConfig.Memory: 524288; want a whole number from 1048576 to 1125899906842624`},
		"swap alone":              {`{"HostConfig":{"MemorySwap":10485760}}`, `.HostConfig.MemorySwap: set without Memory; want both`},
		"endless swap":            {`{"HostConfig":{"Memory":10485760,"MemorySwap":-1}}`, `.HostConfig.MemorySwap: -1; want a whole number from 10485760 to 1125899906842624`},
		"two limits of CPU":       {`{"HostConfig":{"NanoCpus":1000000000,"CpuQuota":1000}}`, `.HostConfig.CpuQuota: set beside NanoCpus; want one of them`},
		"a period alone":          {`{"HostConfig":{"CpuPeriod":1000}}`, `.HostConfig.CpuPeriod: set without CpuQuota; want both`},
		"an inherited variable":   {`{"Env":["PATH"]}`, `.Env[0]: "PATH"; want NAME=value; nothing is taken from the agent's own environment`},
		"a member given twice":    {`{"HostConfig":{"Memory":67108864,"memory":1}}`, `.HostConfig.memory: given twice; want one of Memory and memory`},
		"a sentence as signal":    {`{"StopSignal":"please-stop-now"}`, `.StopSignal: "please-stop-now"; want a signal such as "SIGTERM", or its number`},
		"a signal of spaces":      {`{"StopSignal":"SIG HUP"}`, `.StopSignal: "SIG HUP"; want a signal such as "SIGTERM", or its number`},
		"signal 99":               {`{"StopSignal":"99"}`, `.StopSignal: "99"; want a signal such as "SIGTERM", or its number`},
		"a relative directory":    {`{"WorkingDir":"w"}`, `.WorkingDir: "w"; want an absolute path in the sandbox`},
		"another tmpfs":           {`{"HostConfig":{"Tmpfs":{"/run":""}}}`, `.HostConfig.Tmpfs./run: not available: a sandbox has one tmpfs, /tmp; want /tmp, or a volume`},
		"another ulimit":          {`{"HostConfig":{"Ulimits":[{"Name":"core","Hard":0}]}}`, `.HostConfig.Ulimits[0]: limit "core" cannot be set; want nofile`},
		"a layer of no size":      {`{"HostConfig":{"StorageOpt":{"size":"much"}}}`, `.HostConfig.StorageOpt.size: "much"; want bytes, at least 4096, or a number with k, m or g`},
		"a driver's option":       {`{"HostConfig":{"StorageOpt":{"dm.fs":"x"}}}`, `.HostConfig.StorageOpt.dm.fs: no option of the writable layer that is known here; want size`},
		"unconfined seccomp":      {`{"HostConfig":{"SecurityOpt":["seccomp=unconfined"]}}`, `.HostConfig.SecurityOpt[0]: "seccomp=unconfined" is not available; want "no-new-privileges"`},
		"the host's ipc":          {`{"HostConfig":{"IpcMode":"host"}}`, `.HostConfig.IpcMode: "host" is not available; want it left out`},
		"a file as device":        {`{"HostConfig":{"Devices":[{"PathOnHost":"/etc/shadow"}]}}`, `.HostConfig.Devices[0]: path "/etc/shadow"; want a path below /dev, as /dev/ttyUSB0`},
		"a way out of /dev":       {`{"HostConfig":{"Devices":[{"PathOnHost":"/dev/../etc/shadow"}]}}`, `.HostConfig.Devices[0]: path "/dev/../etc/shadow"; want a path below /dev, as /dev/ttyUSB0`},
		"a right that is none":    {`{"HostConfig":{"Devices":[{"PathOnHost":"/dev/mem","CgroupPermissions":"x"}]}}`, `.HostConfig.Devices[0]: CgroupPermissions "x"; want r or rw, with or without m`},
		"a gateway as host":       {`{"HostConfig":{"ExtraHosts":["h:host-gateway"]}}`, `.HostConfig.ExtraHosts[0]: "h:host-gateway"; want "name:address"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := withOptions(c.options)
			want := c.want
			if want != "" {
				want = "modules.m.settings.createOptions" + want
			}
			if got := refusal(t, err); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func FuzzCreateOptions(f *testing.F) {
	f.Add(`{"Env":["A=1"],"HostConfig":{"Binds":["a:/b"],"Memory":67108864,"CpuQuota":20000,"Tmpfs":{"/tmp":"size=1g"}}}`)
	f.Add(`{"NetworkingConfig":{"EndpointsConfig":{"host":{}}},"Volumes":{"/a":{}},"StopSignal":"9","Entrypoint":"x"}`)
	f.Add(`{"HostConfig":{"Ulimits":[{"Name":"nofile","Hard":64}],"ExtraHosts":["a:::1"]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		p, s := &parser{}, Settings{}
		p.create("createOptions", text, &s)
		if refusal(t, p.done()) != "" {
			return
		}
		l := s.Limits
		if l.Memory < 0 || l.Memory > 0 && l.Memory < minMemory || l.CPU < 0 || l.CPU > 0 && l.CPU < minCPU || l.Tmp < 0 || l.Swap < 0 || l.Pids < 0 {
			t.Fatalf("%q gives limits %+v", text, l)
		}
		for _, v := range s.Create.Volumes {
			if v.Name == "" || v.Name[0] == '.' || strings.Contains(v.Name, "/") || v.Target == "/" || ours(v.Target) {
				t.Fatalf("%q gives volume %+v", text, v)
			}
		}
	})
}
