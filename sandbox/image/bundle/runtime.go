package bundle

import (
	"slices"
	"strings"
)

// Runtime says how a module starts. The deployment may override arguments, environment and user.
type Runtime struct {
	Args     []string          `cbor:"1,keyasint" json:"args"`                            // program and its arguments
	Env      map[string]string `cbor:"2,keyasint,omitempty" json:"env,omitempty"`         // at most 64
	Cwd      string            `cbor:"3,keyasint,omitempty" json:"cwd,omitempty"`         // "" = the root, or /app with the host view
	User     string            `cbor:"4,keyasint,omitempty" json:"user,omitempty"`        // user[:group]; "" = the sandbox's choice
	Stop     string            `cbor:"5,keyasint,omitempty" json:"stop_signal,omitempty"` // "" = SIGTERM
	HostView bool              `cbor:"6,keyasint,omitempty" json:"host_view,omitempty"`   // the image is /app in a view of the host
}

// Limits of the runtime field, in elements and bytes.
const (
	maxArgs   = 64
	maxEnv    = 64
	maxString = 4096
	maxEnvKey = 128
	maxUser   = 32
)

// stopSignals are those that a module can be asked to stop with.
var stopSignals = [...]string{"SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGWINCH"}

func (r Runtime) validate() error {
	if n := len(r.Args); n < 1 || n > maxArgs {
		return check(false, "%d arguments, want 1 to %d with the program first", n, maxArgs)
	}
	for i, arg := range r.Args {
		if (i == 0 && arg == "") || !validString(arg) {
			return check(false, "argument %d of %d bytes, want up to %d without NUL", i, len(arg), maxString)
		}
	}
	if len(r.Env) > maxEnv {
		return check(false, "%d environment variables, want up to %d", len(r.Env), maxEnv)
	}
	for key, value := range r.Env {
		if !validEnvName(key) || !validString(value) {
			return check(false, "environment variable %q, want a name of letters, digits and _ and a value without NUL", key)
		}
	}
	return first([]error{
		check(r.Cwd == "" || (strings.HasPrefix(r.Cwd, "/") && validString(r.Cwd)), "cwd %q, want an absolute path", r.Cwd),
		check(r.User == "" || validUser(r.User), "user %q, want user or user:group", r.User),
		check(r.Stop == "" || slices.Contains(stopSignals[:], r.Stop), "stop signal %q, want one of %v", r.Stop, stopSignals),
	})
}

func validString(s string) bool { return len(s) <= maxString && !strings.ContainsRune(s, 0) }

func validEnvName(s string) bool {
	if s == "" || len(s) > maxEnvKey || (s[0] >= '0' && s[0] <= '9') {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}

func validUser(s string) bool {
	user, group, both := strings.Cut(s, ":")
	return validID(user) && (!both || validID(group))
}

func validID(s string) bool {
	return s != "" && len(s) <= maxUser && s[0] != '-' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}
