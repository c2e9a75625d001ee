package route

import (
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// depth tells how far down the tree of sources a written source goes.
type depth uint8

const (
	nowhere   depth = iota // matches nothing
	anything               // /*
	twins                  // /twinChangeNotifications/*
	telemetry              // /messages/*
	modules                // /messages/modules/*
	module                 // /messages/modules/{module}/*
	outputs                // /messages/modules/{module}/outputs/*
	output                 // /messages/modules/{module}/outputs/{output}
)

// source is a parsed source: a node of the tree, which matches everything below it. Ids and outputs are compared
// without regard to case, as edgeHub does.
type source struct {
	depth  depth
	module string
	output string // may hold slashes: it comes from a property, not from a topic
}

const wantSource = "/*, /messages/*, /messages/modules/*, /messages/modules/{module}/*, " +
	"/messages/modules/{module}/outputs/{output} or /twinChangeNotifications/*"

// parseSource reads a source path. All '*' and '/' at its end are dropped first, so "/messages", "/messages/" and
// "/messages/*" are the same.
func parseSource(path string) (source, bool) {
	if !strings.HasPrefix(path, "/") {
		return source{}, false
	}
	path = strings.TrimRight(path, "*/")
	if path == "" {
		return source{depth: anything}, true
	}
	if strings.Contains(path, "*") {
		return source{}, false // nobody means a literal star, and nothing else can be meant
	}
	parts := strings.SplitN(path[1:], "/", 5)
	if len(parts) == 1 && strings.EqualFold(parts[0], "twinChangeNotifications") {
		return source{depth: twins}, true
	}
	if !strings.EqualFold(parts[0], "messages") || len(parts) > 1 && !strings.EqualFold(parts[1], "modules") ||
		len(parts) > 3 && !strings.EqualFold(parts[3], "outputs") {
		return source{}, false
	}
	s := source{depth: telemetry}
	switch len(parts) {
	case 2:
		s.depth = modules
	case 3:
		s.depth = module
	case 4:
		s.depth = outputs
	case 5:
		s.depth, s.output = output, parts[4]
	}
	if len(parts) > 2 {
		if _, err := iothub.NewID("d", parts[2]); err != nil || parts[2] == "" {
			return source{}, false
		}
		s.module = parts[2]
	}
	return s, true
}

// String prints the source in its one canonical form.
func (s source) String() string {
	switch s.depth {
	case anything:
		return "/*"
	case twins:
		return "/twinChangeNotifications/*"
	case telemetry:
		return "/messages/*"
	case modules:
		return "/messages/modules/*"
	case module:
		return "/messages/modules/" + s.module + "/*"
	case outputs:
		return "/messages/modules/" + s.module + "/outputs/*"
	case output:
		return "/messages/modules/" + s.module + "/outputs/" + s.output
	default:
		return ""
	}
}

// matches tells whether a message of that sender, on that output, lies below the source.
func (s source) matches(from iothub.ID, out string, twinChange bool) bool {
	if twinChange {
		return s.depth == anything || s.depth == twins
	}
	switch s.depth {
	case anything, telemetry:
		return true
	case modules:
		return from.IsModule()
	case module:
		return from.IsModule() && strings.EqualFold(from.Module, s.module)
	case outputs:
		return out != "" && from.IsModule() && strings.EqualFold(from.Module, s.module)
	case output:
		return from.IsModule() && strings.EqualFold(from.Module, s.module) && below(out, s.output)
	default:
		return false
	}
}

// below tells whether the path is the prefix or goes on behind it with a slash.
func below(path, prefix string) bool {
	if len(path) > len(prefix) && path[len(prefix)] == '/' {
		path = path[:len(prefix)]
	}
	return strings.EqualFold(path, prefix)
}
