package iothub

import (
	"fmt"
	"log/slog"
	"strings"
)

// ConnectionString is how a device or a module is told who it is and where its hub is:
// "HostName=…;DeviceId=…[;ModuleId=…][;GatewayHostName=…];SharedAccessKey=…", or "x509=true" in place of the key.
// It prints without the key.
type ConnectionString struct {
	Host    string // the hub
	Gateway string // whom to dial instead; "" = the hub
	ID      ID
	Key     Key  // empty exactly when X509
	X509    bool // the credential is a client certificate
}

// ParseConnectionString reads a connection string of a device or a module: members in any order, names in any
// case, each at most once; an unknown member is an error, not a surprise later. At most [MaxConnectionText] bytes.
// Errors do not repeat values.
func ParseConnectionString(s Secret) (ConnectionString, error) {
	fail := func(why string) (ConnectionString, error) {
		return ConnectionString{}, syntax("connection string", "", why)
	}
	text := s.Reveal()
	if len(text) > MaxConnectionText {
		return fail("longer than 4096 bytes")
	}
	var host, gateway, device, module, key, x509 string
	fields := map[string]*string{
		"hostname": &host, "gatewayhostname": &gateway, "deviceid": &device, "moduleid": &module,
		"sharedaccesskey": &key, "x509": &x509,
	}
	seen := map[string]bool{}
	for text = strings.TrimSpace(text); text != ""; {
		var pair string
		pair, text, _ = strings.Cut(text, ";")
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return fail("a member without \"=\", want Name=value;Name=value")
		}
		lower := strings.ToLower(name)
		field := fields[lower]
		switch {
		case lower == "sharedaccesskeyname":
			return fail("has SharedAccessKeyName: this is one of a service, take the one of the device")
		case field == nil:
			return fail("unknown member " + cut(name) + ", allowed: HostName, GatewayHostName, DeviceId, ModuleId, SharedAccessKey, x509")
		case seen[lower]:
			return fail(name + " given twice")
		case value == "":
			return fail(name + " is empty")
		}
		seen[lower] = true
		*field = value
	}
	return connection(host, gateway, device, module, key, x509)
}

func connection(host, gateway, device, module, key, x509 string) (ConnectionString, error) {
	fail := func(why string) (ConnectionString, error) {
		return ConnectionString{}, syntax("connection string", "", why)
	}
	if !hostName(host) {
		return fail("HostName missing or not a host name")
	}
	if gateway != "" && !hostName(gateway) {
		return fail("GatewayHostName is not a host name")
	}
	id, err := NewID(device, module)
	if err != nil {
		return fail(err.Error())
	}
	c := ConnectionString{Host: host, Gateway: gateway, ID: id}
	if x509 != "" {
		if !strings.EqualFold(x509, "true") {
			return fail(`x509 is not "true"`)
		}
		c.X509 = true
	}
	if c.X509 == (key != "") {
		return fail("want either SharedAccessKey or x509=true")
	}
	if key == "" {
		return c, nil
	}
	if c.Key, err = ParseKey(key); err != nil {
		return fail("SharedAccessKey is no key: " + err.Error())
	}
	return c, nil
}

// Text prints the whole connection string, key included; [ParseConnectionString] reads it back.
func (c ConnectionString) Text() Secret { return Secret(c.print(c.Key.Text())) }

func (c ConnectionString) print(key string) string {
	s := "HostName=" + c.Host + ";DeviceId=" + c.ID.Device
	if c.ID.Module != "" {
		s += ";ModuleId=" + c.ID.Module
	}
	if c.Gateway != "" {
		s += ";GatewayHostName=" + c.Gateway
	}
	if c.X509 {
		return s + ";x509=true"
	}
	return s + ";SharedAccessKey=" + key
}

// String prints the connection string with the key hidden.
func (c ConnectionString) String() string { return c.print(hidden) }

// Format prints [ConnectionString.String] under every verb.
func (c ConnectionString) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(c.String())) }

// LogValue prints [ConnectionString.String].
func (c ConnectionString) LogValue() slog.Value { return slog.StringValue(c.String()) }
