package iothub

import (
	"crypto/hmac"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// tokenScheme is the first word of a token and of an Authorization header that carries one.
const tokenScheme = "SharedAccessSignature"

// maxExpiry is the last second of the year 9999: later expiries mean "never" and are cut to it.
const maxExpiry = 253402300799

// Token is a parsed SAS token: whom it is about, until when, and who signed. A parsed token is not yet a valid one:
// [Token.Verify], [Token.Audience] and [Token.Expired] are three questions, and all three must be asked. It prints
// without its signature.
type Token struct {
	resource  string // sr as received: the signature covers this text, whatever the hex case
	expiryRaw string // se as received, covered too
	policy    string
	signature [32]byte
	expiry    int64
}

// ParseToken reads "SharedAccessSignature sr=…&sig=…&se=…[&skn=…]": the fields in any order, each at most once,
// unknown ones ignored. At most [MaxToken] bytes. Errors do not repeat the token.
func ParseToken(s Secret) (Token, error) {
	text := s.Reveal()
	if len(text) > MaxToken {
		return Token{}, syntax("token", "", "longer than 4096 bytes")
	}
	scheme, fields, ok := strings.Cut(text, " ")
	if !ok || !strings.EqualFold(scheme, tokenScheme) {
		return Token{}, syntax("token", "", "want SharedAccessSignature sr=…&sig=…&se=…")
	}
	var sr, sig, se, skn *string
	for fields != "" {
		var pair string
		pair, fields, _ = strings.Cut(fields, "&")
		key, value, _ := strings.Cut(pair, "=")
		var field **string
		switch key {
		case "sr":
			field = &sr
		case "sig":
			field = &sig
		case "se":
			field = &se
		case "skn":
			field = &skn
		default:
			continue
		}
		if *field != nil {
			return Token{}, syntax("token", "", key+" given twice")
		}
		*field = &value
	}
	if sr == nil || *sr == "" || sig == nil || se == nil {
		return Token{}, syntax("token", "", "sr, sig or se missing")
	}
	t := Token{resource: *sr, expiryRaw: *se}
	if skn != nil {
		t.policy = unescape(*skn)
	}
	digest, err := base64.StdEncoding.DecodeString(unescape(*sig))
	if err != nil || len(digest) != len(t.signature) {
		return Token{}, syntax("token", "", "sig is not the base64 of 32 bytes")
	}
	copy(t.signature[:], digest)
	seconds, err := strconv.ParseUint(*se, 10, 63)
	if err != nil {
		return Token{}, syntax("token", "", "se is not a number of seconds")
	}
	t.expiry = int64(min(seconds, maxExpiry))
	return t, nil
}

// Resource is the sr field as received, percent-encoded as its sender liked.
func (t Token) Resource() string { return t.resource }

// Policy is the skn field, decoded: the name of a shared access policy on tokens of services, "" on those of devices.
func (t Token) Policy() string { return t.policy }

// Expiry is the se field, UTC.
func (t Token) Expiry() time.Time { return time.Unix(t.expiry, 0).UTC() }

// Expired tells whether the token is past its expiry by more than [SkewTolerance].
func (t Token) Expired(now time.Time) bool { return now.After(t.Expiry().Add(SkewTolerance)) }

// Verify tells whether one of the keys (primary, secondary) signed the token. Every key is tried, in constant time;
// an empty key signs nothing.
func (t Token) Verify(keys ...Key) bool {
	signed := []byte(t.resource + "\n" + t.expiryRaw)
	ok := false
	for _, key := range keys {
		if len(key) > 0 && hmac.Equal(key.Sign(signed), t.signature[:]) {
			ok = true
		}
	}
	return ok
}

// String prints what is not secret.
func (t Token) String() string {
	return fmt.Sprintf("token for %q until %s", cut(t.resource), t.Expiry().Format(time.RFC3339))
}

// Format prints [Token.String] under every verb, so that %+v does not reach the signature.
func (t Token) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(t.String())) }

// LogValue prints [Token.String].
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// Audience is what a token gives access to, decoded.
type Audience struct {
	Host string // host name of a hub, or of the edge device
	ID   ID     // zero: the whole host (tokens with a policy)
}

// Audience decodes the resource: "{host}", "{host}/devices/{device}" or "{host}/devices/{device}/modules/{module}".
func (t Token) Audience() (Audience, error) {
	parts := strings.Split(unescape(t.resource), "/")
	a := Audience{Host: parts[0]}
	if !hostName(a.Host) {
		return Audience{}, syntax("token resource", t.resource, "does not begin with a host name")
	}
	var device, module string
	switch n := len(parts); {
	case n == 1:
		return a, nil
	case n == 3 && strings.EqualFold(parts[1], "devices"):
		device = parts[2]
	case n == 5 && strings.EqualFold(parts[1], "devices") && strings.EqualFold(parts[3], "modules") && parts[4] != "":
		device, module = parts[2], parts[4]
	default:
		return Audience{}, syntax("token resource", t.resource, "want {host}[/devices/{device}[/modules/{module}]]")
	}
	id, err := NewID(device, module)
	if err != nil {
		return Audience{}, syntax("token resource", t.resource, err.Error())
	}
	a.ID = id
	return a, nil
}

// Is tells whether the audience is exactly that identity at that host. Case does not count: edgeHub compares so,
// and SDKs differ in how they write the host.
func (a Audience) Is(host string, id ID) bool {
	return strings.EqualFold(a.Host, host) && strings.EqualFold(a.ID.Device, id.Device) && strings.EqualFold(a.ID.Module, id.Module)
}

// String prints the resource, decoded.
func (a Audience) String() string {
	if a.ID.IsZero() {
		return a.Host
	}
	return a.ID.Resource(a.Host)
}

// MintToken makes a token for a resource (as [ID.Resource] prints it, or a bare host name with a policy). The
// signature comes from sign, which gets the exact bytes to sign and may be far away: a TPM, the workload API. An empty policy
// is left out, as it must be for devices and modules. The expiry counts whole seconds.
func MintToken(resource, policy string, expiry time.Time, sign func(data []byte) ([]byte, error)) (Secret, error) {
	seconds := expiry.Unix()
	if seconds < 0 || seconds > maxExpiry {
		return "", syntax("token", "", "expiry "+expiry.UTC().Format(time.RFC3339)+" is not between 1970 and 9999")
	}
	sr, se := escape(resource), strconv.FormatInt(seconds, 10)
	signature, err := sign([]byte(sr + "\n" + se))
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	token := tokenScheme + " sr=" + sr + "&sig=" + escape(base64.StdEncoding.EncodeToString(signature)) + "&se=" + se
	if policy != "" {
		token += "&skn=" + escape(policy)
	}
	return Secret(token), nil
}

// hostName tells whether s may be a host name, perhaps with a port.
func hostName(s string) bool {
	if s == "" || len(s) > 255+6 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !unreserved(c) && c != ':' {
			return false
		}
	}
	return true
}
