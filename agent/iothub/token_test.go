package iothub

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"
)

// testKey is the base64 of the 32 characters 0123456789abcdef0123456789abcdef; the signatures below were made from it
// with another implementation of HMAC.
const testKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

func key(t testing.TB) Key {
	t.Helper()
	k, err := ParseKey(testKey)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestTokens(t *testing.T) {
	t.Parallel()
	mod := ID{"edge1", "mod1"}
	for name, tc := range map[string]struct {
		text     string
		resource string
		policy   string
		audience Audience
	}{
		"Node's order, upper-case hex": {
			text:     "SharedAccessSignature sr=hub.example.net%2Fdevices%2Fedge1%2Fmodules%2Fmod1&sig=vdhmmG1JCzvFF7vgl4XLHcRaPJSpSqtHmXDi6Tq9gks%3D&se=1795551440",
			resource: "hub.example.net%2Fdevices%2Fedge1%2Fmodules%2Fmod1",
			audience: Audience{"hub.example.net", mod},
		},
		"the C encoder's lower-case hex is signed as it stands": {
			text:     "SharedAccessSignature sr=hub.example.net%2fdevices%2fedge1%2fmodules%2fmod1&sig=%2bfo8HOg7IZ6R7bY%2b6SpwRp6KWXCA4wrw%2beqSFhzRoVE%3d&se=1795551440",
			resource: "hub.example.net%2fdevices%2fedge1%2fmodules%2fmod1",
			audience: Audience{"hub.example.net", mod},
		},
		"fields in another order, one unknown, an empty one": {
			text:     "SharedAccessSignature se=1795551440&x=y&&sig=vdhmmG1JCzvFF7vgl4XLHcRaPJSpSqtHmXDi6Tq9gks%3D&sr=hub.example.net%2Fdevices%2Fedge1%2Fmodules%2Fmod1",
			resource: "hub.example.net%2Fdevices%2Fedge1%2Fmodules%2Fmod1",
			audience: Audience{"hub.example.net", mod},
		},
		"a device, nothing encoded": {
			text:     "SharedAccessSignature sr=hub.example.net/devices/edge1&sig=lXO/tuHZ6qqoGBuxQ2wOnA9gPHd6SBu8m5f9G1zSos8=&se=1795551440",
			resource: "hub.example.net/devices/edge1",
			audience: Audience{"hub.example.net", ID{Device: "edge1"}},
		},
		"a service with its policy": {
			text:     "SharedAccessSignature sr=hub.example.net&sig=YG1zDIeyygVee%2Bl4N8E6E4sA2iLltfU0iyPyalg9%2BX0%3D&skn=iothub%4Fwner&se=1795551440",
			resource: "hub.example.net", policy: "iothubOwner",
			audience: Audience{Host: "hub.example.net"},
		},
		"an id with a dollar": {
			text:     "sharedaccesssignature sr=hub.example.net%2Fdevices%2Fedge1%2Fmodules%2F%24edgeAgent&sig=iazDrS9a%2BVyEUm1eI4718UhKweLL%2FdBV2XQYCa9d5MI%3D&se=1795551440",
			resource: "hub.example.net%2Fdevices%2Fedge1%2Fmodules%2F%24edgeAgent",
			audience: Audience{"hub.example.net", ID{"edge1", EdgeAgent}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			token, err := ParseToken(Secret(tc.text))
			if err != nil {
				t.Fatal(err)
			}
			if token.Resource() != tc.resource || token.Policy() != tc.policy || token.Expiry().Unix() != 1795551440 {
				t.Errorf("got %q %q %v, want %q %q", token.Resource(), token.Policy(), token.Expiry(), tc.resource, tc.policy)
			}
			if audience, err := token.Audience(); err != nil || audience != tc.audience {
				t.Errorf("audience: got %+v, error %v, want %+v", audience, err, tc.audience)
			}
			other := NewKey()
			if !token.Verify(key(t)) || !token.Verify(other, key(t)) || !token.Verify(key(t), other) {
				t.Error("the right key, alone, first or second, does not verify")
			}
			if token.Verify() || token.Verify(other) || token.Verify(nil, Key{}) {
				t.Error("no key, a wrong key or an empty key verifies")
			}
		})
	}
}

func TestTokensThatChangedDoNotVerify(t *testing.T) {
	t.Parallel()
	const good = "SharedAccessSignature sr=hub.example.net%2Fdevices%2Fedge1%2Fmodules%2Fmod1&sig=vdhmmG1JCzvFF7vgl4XLHcRaPJSpSqtHmXDi6Tq9gks%3D&se=1795551440"
	for name, text := range map[string]string{
		"another module":         strings.Replace(good, "mod1", "mod2", 1),
		"the same in other hex":  strings.ReplaceAll(good, "%2F", "%2f"),
		"a later expiry":         strings.Replace(good, "1795551440", "1795551441", 1),
		"the expiry spelt anew":  strings.Replace(good, "1795551440", "01795551440", 1),
		"one bit of signature":   strings.Replace(good, "sig=v", "sig=w", 1),
		"a resource that is cut": strings.Replace(good, "%2Fmodules%2Fmod1", "", 1),
	} {
		token, err := ParseToken(Secret(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if token.Verify(key(t)) {
			t.Errorf("%s: verifies", name)
		}
	}
}

func TestBadTokens(t *testing.T) {
	t.Parallel()
	const sig = "&sig=vdhmmG1JCzvFF7vgl4XLHcRaPJSpSqtHmXDi6Tq9gks%3D"
	for name, text := range map[string]string{
		"empty":                      "",
		"a password":                 "hunter2",
		"another scheme":             "Bearer sr=a&se=1" + sig,
		"no space":                   "SharedAccessSignaturesr=a&se=1" + sig,
		"no resource":                "SharedAccessSignature se=1" + sig,
		"an empty resource":          "SharedAccessSignature sr=&se=1" + sig,
		"no signature":               "SharedAccessSignature sr=a&se=1",
		"no expiry":                  "SharedAccessSignature sr=a" + sig,
		"resource twice":             "SharedAccessSignature sr=a&sr=b&se=1" + sig,
		"signature twice":            "SharedAccessSignature sr=a&se=1" + sig + sig,
		"expiry twice":               "SharedAccessSignature sr=a&se=1&se=2" + sig,
		"policy twice":               "SharedAccessSignature sr=a&se=1&skn=&skn=x" + sig,
		"a signature of 31 bytes":    "SharedAccessSignature sr=a&se=1&sig=vdhmmG1JCzvFF7vgl4XLHcRaPJSpSqtHmXDi6Tq9gg%3D%3D",
		"a signature not in base64":  "SharedAccessSignature sr=a&se=1&sig=%00",
		"an expiry that is a word":   "SharedAccessSignature sr=a&se=soon" + sig,
		"a negative expiry":          "SharedAccessSignature sr=a&se=-1" + sig,
		"a fractional expiry":        "SharedAccessSignature sr=a&se=1.5" + sig,
		"an expiry beyond 63 bits":   "SharedAccessSignature sr=a&se=9223372036854775808" + sig,
		"a token of immense length":  "SharedAccessSignature sr=" + strings.Repeat("a", MaxToken) + "&se=1" + sig,
		"fields behind an empty one": "SharedAccessSignature  ",
	} {
		token, err := ParseToken(Secret(text))
		if err == nil || token != (Token{}) {
			t.Errorf("%s: got %v, error %v", name, token, err)
		} else if len(text) > 25 && strings.Contains(err.Error(), text[22:]) {
			t.Errorf("%s: the error repeats the token: %v", name, err)
		}
	}
}

func TestBadAudiences(t *testing.T) {
	t.Parallel()
	for name, resource := range map[string]string{
		"no host":                "/devices/d",
		"a strange host":         "a b/devices/d",
		"no device":              "hub/devices/",
		"devices and nothing":    "hub/devices",
		"another collection":     "hub/things/d",
		"a module of nothing":    "hub/devices/d/modules/",
		"another subcollection":  "hub/devices/d/parts/m",
		"something behind":       "hub/devices/d/modules/m/x",
		"a bad device id":        "hub/devices/d d",
		"an id encoded twice":    "hub%252Fdevices%252Fd",
		"a provisioning service": "0ne00000A0A/registrations/reg1",
	} {
		token := Token{resource: resource}
		if a, err := token.Audience(); err == nil || a != (Audience{}) {
			t.Errorf("%s: got %+v, error %v", name, a, err)
		}
	}
}

func TestAudienceComparesWithoutCase(t *testing.T) {
	t.Parallel()
	a := Audience{"Hub.example.net", ID{"Edge1", "Mod1"}}
	if !a.Is("hub.EXAMPLE.net", ID{"edge1", "mod1"}) {
		t.Error("case counts")
	}
	if a.Is("hub2.example.net", ID{"edge1", "mod1"}) || a.Is("hub.example.net", ID{Device: "edge1"}) || a.Is("hub.example.net", ID{"edge2", "mod1"}) {
		t.Error("somebody else is the same")
	}
	if got, want := a.String(), "Hub.example.net/devices/Edge1/modules/Mod1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTokensExpireFiveMinutesLate(t *testing.T) {
	t.Parallel()
	token := Token{expiry: 1000}
	for at, want := range map[int64]bool{0: false, 1000: false, 1300: false, 1301: true} {
		if got := token.Expired(time.Unix(at, 0)); got != want {
			t.Errorf("at %d: got %t, want %t", at, got, want)
		}
	}
	forever, err := ParseToken("SharedAccessSignature sr=a&sig=vdhmmG1JCzvFF7vgl4XLHcRaPJSpSqtHmXDi6Tq9gks%3D&se=9223372036854775807")
	if err != nil || forever.Expired(time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC)) || forever.Expiry().Year() != 9999 {
		t.Errorf("an immense expiry: got %v, error %v, want the year 9999", forever.Expiry(), err)
	}
}

func TestMintedTokensParse(t *testing.T) {
	t.Parallel()
	expiry := time.Unix(1795551440, 999)
	for name, tc := range map[string]struct{ resource, policy, want string }{
		"a module":  {ID{"edge1", "mod1"}.Resource("hub.example.net"), "", "SharedAccessSignature sr=hub.example.net%2Fdevices%2Fedge1%2Fmodules%2Fmod1&sig=vdhmmG1JCzvFF7vgl4XLHcRaPJSpSqtHmXDi6Tq9gks%3D&se=1795551440"},
		"a service": {"hub.example.net", "iothubowner", "SharedAccessSignature sr=hub.example.net&sig=YG1zDIeyygVee%2Bl4N8E6E4sA2iLltfU0iyPyalg9%2BX0%3D&se=1795551440&skn=iothubowner"},
	} {
		got, err := MintToken(tc.resource, tc.policy, expiry, key(t).Signer())
		if err != nil || got.Reveal() != tc.want {
			t.Errorf("%s: got %s, error %v, want %s", name, got.Reveal(), err, tc.want)
		}
	}
	broken := errors.New("no TPM")
	if s, err := MintToken("a", "", expiry, func([]byte) ([]byte, error) { return nil, broken }); !errors.Is(err, broken) || s != "" {
		t.Errorf("a signer that fails: got %q, error %v", s.Reveal(), err)
	}
	for _, year := range []int{1969, 10000} {
		if _, err := MintToken("a", "", time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC), key(t).Signer()); err == nil {
			t.Errorf("a token was minted for the year %d", year)
		}
	}
}

func TestConnectionStrings(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text  string
		want  ConnectionString
		print string // "" = text
		bad   string // part of the error
	}{
		"a device":           {text: "HostName=hub.example.net;DeviceId=edge1;SharedAccessKey=" + testKey, want: ConnectionString{Host: "hub.example.net", ID: ID{Device: "edge1"}, Key: key(t)}},
		"a module, gateway":  {text: "HostName=hub;DeviceId=d;ModuleId=m;GatewayHostName=gw01;SharedAccessKey=QUE=", want: ConnectionString{Host: "hub", Gateway: "gw01", ID: ID{"d", "m"}, Key: Key("AA")}},
		"a certificate":      {text: "HostName=hub;DeviceId=d;x509=true", want: ConnectionString{Host: "hub", ID: ID{Device: "d"}, X509: true}},
		"other order, cases": {text: " sharedaccesskey=QUE=;;deviceid=d; HOSTNAME=hub; \n", want: ConnectionString{Host: "hub", ID: ID{Device: "d"}, Key: Key("AA")}, print: "HostName=hub;DeviceId=d;SharedAccessKey=QUE="},
		"X509 in words":      {text: "HostName=hub;DeviceId=d;X509=True", want: ConnectionString{Host: "hub", ID: ID{Device: "d"}, X509: true}, print: "HostName=hub;DeviceId=d;x509=true"},

		"a service's":         {text: "HostName=hub;SharedAccessKeyName=iothubowner;SharedAccessKey=QUE=", bad: "service"},
		"an unknown member":   {text: "HostName=hub;DeviceId=d;SharedAccessKey=QUE=;Colour=blue", bad: "Colour"},
		"no host":             {text: "DeviceId=d;SharedAccessKey=QUE=", bad: "HostName"},
		"a bad host":          {text: "HostName=h/b;DeviceId=d;SharedAccessKey=QUE=", bad: "HostName"},
		"a bad gateway":       {text: "HostName=hub;GatewayHostName=g w;DeviceId=d;SharedAccessKey=QUE=", bad: "GatewayHostName"},
		"no device":           {text: "HostName=hub;SharedAccessKey=QUE=", bad: "device id"},
		"no credential":       {text: "HostName=hub;DeviceId=d", bad: "either"},
		"both credentials":    {text: "HostName=hub;DeviceId=d;x509=true;SharedAccessKey=QUE=", bad: "either"},
		"x509 said otherwise": {text: "HostName=hub;DeviceId=d;x509=false", bad: "x509"},
		"a key not in base64": {text: "HostName=hub;DeviceId=d;SharedAccessKey=hush!", bad: "SharedAccessKey"},
		"a member twice":      {text: "HostName=hub;HostName=hub;DeviceId=d;SharedAccessKey=QUE=", bad: "twice"},
		"an empty member":     {text: "HostName=hub;DeviceId=d;ModuleId=;SharedAccessKey=QUE=", bad: "empty"},
		"a bare word":         {text: "hush", bad: "without"},
		"empty":               {text: "", bad: "HostName"},
		"immense":             {text: strings.Repeat("a", MaxConnectionText+1), bad: "longer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseConnectionString(Secret(tc.text))
			if tc.bad != "" {
				if err == nil || !strings.Contains(err.Error(), tc.bad) || strings.Contains(err.Error(), "hush") {
					t.Fatalf("got error %v, want one that says %q and repeats no value", err, tc.bad)
				}
				return
			}
			if err != nil || got.Text() != tc.want.Text() || got.X509 != tc.want.X509 || got.Gateway != tc.want.Gateway {
				t.Fatalf("got %v, error %v, want %v", got.Text().Reveal(), err, tc.want.Text().Reveal())
			}
			want := tc.print
			if want == "" {
				want = tc.text
			}
			if got.Text().Reveal() != want {
				t.Fatalf("printed %q, want %q", got.Text().Reveal(), want)
			}
		})
	}
}

func FuzzToken(f *testing.F) {
	f.Add("SharedAccessSignature sr=hub.example.net%2fdevices%2fedge1&sig=vdhmmG1JCzvFF7vgl4XLHcRaPJSpSqtHmXDi6Tq9gks%3D&se=1795551440", "p")
	f.Add("SharedAccessSignature sr=hub&skn=a%20b&se=99999999999999&sig=vdhmmG1JCzvFF7vgl4XLHcRaPJSpSqtHmXDi6Tq9gks=", "")
	f.Add("sharedaccesssignature sig=&sr=%00&se=", "ä&=")
	k := Key("fuzz")
	f.Fuzz(func(t *testing.T, s, policy string) {
		token, err := ParseToken(Secret(s))
		if err != nil {
			return
		}
		if token.Verify(k) {
			t.Fatalf("%q verifies with a key that nobody had", s)
		}
		audience, err := token.Audience()
		if err != nil || len(s) > MaxToken/4 || len(policy) > 100 || unescape(url.QueryEscape(policy)) != policy {
			return
		}
		minted, err := MintToken(audience.String(), policy, token.Expiry(), k.Signer())
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseToken(minted)
		if err != nil || !again.Verify(k) || again.Policy() != policy || !again.Expiry().Equal(token.Expiry()) {
			t.Fatalf("minted %q for %v: got %v, error %v", minted.Reveal(), audience, again, err)
		}
		if a, err := again.Audience(); err != nil || a != audience {
			t.Fatalf("audience %+v became %+v, error %v", audience, a, err)
		}
	})
}

func FuzzConnectionString(f *testing.F) {
	for _, s := range []string{
		"HostName=hub.example.net;DeviceId=edge1;SharedAccessKey=" + testKey,
		"HostName=hub;DeviceId=d;ModuleId=m;GatewayHostName=gw01;x509=true", " sharedaccesskey=QUE=;;deviceid=d; HOSTNAME=hub:8883",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseConnectionString(Secret(s))
		if err != nil {
			return
		}
		if again, err := ParseConnectionString(c.Text()); err != nil || again.Text() != c.Text() || again.X509 != c.X509 {
			t.Fatalf("%q prints %q, which parses to %q, error %v", s, c.Text().Reveal(), again.Text().Reveal(), err)
		}
	})
}

func BenchmarkTokenVerify(b *testing.B) {
	k := key(b)
	token, err := ParseToken("SharedAccessSignature sr=a&sig=vdhmmG1JCzvFF7vgl4XLHcRaPJSpSqtHmXDi6Tq9gks%3D&se=1")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		token.Verify(k)
	}
}
