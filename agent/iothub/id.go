package iothub

import "strings"

// ID names a device, or a module of a device when Module is set. The zero ID names nobody. Ids are case-sensitive
// and comparable; $edgeAgent and $edgeHub are ordinary module ids here.
type ID struct {
	Device string
	Module string // "" is the device itself
}

// NewID checks the parts of an id by the service's rules: 1 to [MaxID] characters each, letters, digits and
// - . + % _ # * ? ! ( ) , : = @ $ '. The module may be empty.
func NewID(device, module string) (ID, error) {
	if why := badID(device); why != "" {
		return ID{}, syntax("device id", device, why)
	}
	if module != "" {
		if why := badID(module); why != "" {
			return ID{}, syntax("module id", module, why)
		}
	}
	return ID{Device: device, Module: module}, nil
}

// ParseID reads an MQTT client id: "device" or "device/module".
func ParseID(s string) (ID, error) {
	device, module, both := strings.Cut(s, "/")
	if both && module == "" {
		return ID{}, syntax("id", s, `nothing after the "/", want device or device/module`)
	}
	return NewID(device, module)
}

// String prints the MQTT client id, which [ParseID] reads.
func (id ID) String() string {
	if id.Module == "" {
		return id.Device
	}
	return id.Device + "/" + id.Module
}

// IsModule tells a module from a device.
func (id ID) IsModule() bool { return id.Module != "" }

// IsZero tells whether id names nobody.
func (id ID) IsZero() bool { return id == ID{} }

// Resource is what a token for id is about, not percent-encoded: "{hub}/devices/{device}[/modules/{module}]".
func (id ID) Resource(hub string) string {
	if id.Module == "" {
		return hub + "/devices/" + id.Device
	}
	return hub + "/devices/" + id.Device + "/modules/" + id.Module
}

// MarshalText prints like [ID.String], so that an id may be a JSON string, a JSON key or a log value.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what [ID.MarshalText] prints; empty text is the zero ID.
func (id *ID) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*id = ID{}
		return nil
	}
	parsed, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// badID says why s is not a device or module id, "" if it is one.
func badID(s string) string {
	if s == "" {
		return "empty"
	}
	if len(s) > MaxID {
		return "longer than 128 characters"
	}
	for i := range len(s) {
		if !idByte(s[i]) {
			return "holds a character that ids must not have (allowed: letters, digits and -.+%_#*?!(),:=@$')"
		}
	}
	return ""
}

func idByte(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return strings.IndexByte("-.+%_#*?!(),:=@$'", c) >= 0
}
