package state

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrHubName is a host name whose first label cannot name a hub.
var ErrHubName = errors.New("the first label of the host name must be 3 to 50 of a-z, 0-9 and -")

// HubName is the name under which a hub keeps its state: the first label of its host name, in lower case.
func HubName(host string) (string, error) {
	label, _, _ := strings.Cut(strings.ToLower(host), ".")
	if len(label) < 3 || len(label) > 50 {
		return "", fmt.Errorf("host name %q: %w", host, ErrHubName)
	}
	for i := range len(label) {
		c := label[i]
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' {
			continue
		}
		return "", fmt.Errorf("host name %q: %w", host, ErrHubName)
	}
	return label, nil
}

// names are the streams and subjects of one hub.
type names struct{ hub string }

func (n names) docsBucket(shard int) string {
	if shard == metaShard {
		return n.hub + "-meta"
	}
	return n.hub + "-s" + two(shard)
}

func (n names) docsStream(shard int) string { return "KV_" + n.docsBucket(shard) }

// docsSubject is the subject prefix of a bucket, with its last dot.
func (n names) docsSubject(shard int) string { return "$KV." + n.docsBucket(shard) + "." }

func (n names) logStream(shard int) string { return "D2C-" + n.hub + "-" + two(shard) }

func (n names) logSubjects(shard int) string { return "d2c." + n.hub + "." + two(shard) + ".>" }

// logSubject is where one event of one identity goes. Empty parts of a filter are given as "*".
func (n names) logSubject(shard int, device, module, kind string) string {
	return "d2c." + n.hub + "." + two(shard) + "." + device + "." + module + "." + kind
}

func (n names) liveBucket() string { return n.hub + "-live" }

func (n names) busSubject(topic string) string { return "hub." + n.hub + "." + topic }

func two(n int) string {
	if n < 10 {
		return "0" + strconv.Itoa(n)
	}
	return strconv.Itoa(n)
}
