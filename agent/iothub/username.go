package iothub

import (
	"strings"
	"unicode/utf8"
)

// UserName is what a client says of itself in CONNECT:
// "{hub}/{device}[/{module}]/?api-version=X&DeviceClientType=Y[&model-id=Z][&auth-chain=W]".
type UserName struct {
	Hub        string // host name of the hub, not validated: edgeHub does not look at it either
	ID         ID
	APIVersion string // never empty after ParseUserName, any value
	ClientType string // SDK and platform, decoded; "" when not said
	ModelID    string // plug-and-play model, decoded; "" when not said
	AuthChain  string // "target;…;actor" of a nested edge device, decoded; "" when not said
}

// legacyTail is how one early .NET client (and nobody else) ends its user name: six segments, no query.
const (
	legacyVersion = "2017-06-30"
	legacyClient  = "Microsoft.Azure.Devices.Client/1.5.1-preview-003"
	legacyTail    = "/api-version=" + legacyVersion + "/DeviceClientType=" + legacyClient
)

// ParseUserName reads all forms that edgeHub reads: the query in a segment of its own behind a device or a module
// id, with or without its '?', and the six-segment form of one early .NET client. Members of the query may come in
// any order, the first of equal ones counts, unknown ones are ignored; api-version is required.
func ParseUserName(s string) (UserName, error) {
	if len(s) > MaxUserName {
		return UserName{}, syntax("user name", s, "longer than 4096 bytes")
	}
	if !utf8.ValidString(s) {
		return UserName{}, syntax("user name", s, "not UTF-8")
	}
	parts := strings.Split(s, "/")
	if n := len(s) - len(legacyTail); len(parts) == 6 && n > 0 && strings.EqualFold(s[n:], legacyTail) {
		id, err := NewID(parts[1], parts[2])
		if err != nil {
			return UserName{}, syntax("user name", s, err.Error())
		}
		return UserName{Hub: parts[0], ID: id, APIVersion: legacyVersion, ClientType: legacyClient}, nil
	}
	last := parts[len(parts)-1]
	if len(parts) < 3 || len(parts) > 4 || !strings.HasPrefix(last, "?") && !strings.Contains(last, "api-version=") {
		return UserName{}, syntax("user name", s, "want {hub}/{device}[/{module}]/?api-version=…")
	}
	u := UserName{Hub: parts[0]}
	module := ""
	if len(parts) == 4 {
		if module = parts[2]; module == "" {
			return UserName{}, syntax("user name", s, "empty module id")
		}
	}
	id, err := NewID(parts[1], module)
	if err != nil {
		return UserName{}, syntax("user name", s, err.Error())
	}
	u.ID = id
	u.query(strings.TrimPrefix(last, "?"))
	if u.APIVersion == "" {
		return UserName{}, syntax("user name", s, "no api-version")
	}
	return u, nil
}

// query fills the fields that the query names; an empty value counts as not said.
func (u *UserName) query(s string) {
	fields := map[string]*string{
		"api-version":      &u.APIVersion,
		"DeviceClientType": &u.ClientType,
		"model-id":         &u.ModelID,
		"auth-chain":       &u.AuthChain,
	}
	for s != "" {
		var pair string
		pair, s, _ = strings.Cut(s, "&")
		key, value, _ := strings.Cut(pair, "=")
		if field := fields[key]; field != nil {
			*field = unescape(value)
			delete(fields, key)
		}
	}
}

// String prints the user name as a client sends it; what is empty is left out.
func (u UserName) String() string {
	var b strings.Builder
	b.WriteString(u.Hub)
	b.WriteByte('/')
	b.WriteString(u.ID.String())
	b.WriteString("/?api-version=")
	b.WriteString(escape(u.APIVersion))
	for _, f := range [...]Property{
		{"DeviceClientType", u.ClientType}, {"model-id", u.ModelID}, {"auth-chain", u.AuthChain},
	} {
		if f.Value != "" {
			b.WriteByte('&')
			b.WriteString(f.Key)
			b.WriteByte('=')
			b.WriteString(escape(f.Value))
		}
	}
	return b.String()
}
