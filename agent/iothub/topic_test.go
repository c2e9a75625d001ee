package iothub

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestPublishTopics(t *testing.T) {
	t.Parallel()
	device, mod := ID{Device: "edge1"}, ID{"edge1", "mod1"}
	for name, tc := range map[string]struct {
		topic string
		want  Publish
		print string // "" = topic
	}{
		"module, Node's output with properties": {
			topic: "devices/edge1/modules/mod1/messages/events/%24.on=out1&%24.mid=id%201&%24.ct=application%2Fjson&%24.ce=utf-8&alert=a%2Fb%20c/",
			want:  Publish{Kind: Telemetry, ID: mod, Bag: Bag{{"$.on", "out1"}, {"$.mid", "id 1"}, {"$.ct", "application/json"}, {"$.ce", "utf-8"}, {"alert", "a/b c"}}},
			print: "devices/edge1/modules/mod1/messages/events/%24.on=out1&%24.mid=id%201&%24.ct=application%2Fjson&%24.ce=utf-8&alert=a%2Fb%20c",
		},
		"module, Node's bare output":      {topic: "devices/edge1/modules/mod1/messages/events/%24.on=out2/", want: Publish{Kind: Telemetry, ID: mod, Bag: Bag{{"$.on", "out2"}}}, print: "devices/edge1/modules/mod1/messages/events/%24.on=out2"},
		"module, Python's output":         {topic: "devices/edge1/modules/mod1/messages/events/%24.on=out2", want: Publish{Kind: Telemetry, ID: mod, Bag: Bag{{"$.on", "out2"}}}},
		"module, no bag, slash":           {topic: "devices/edge1/modules/mod1/messages/events/", want: Publish{Kind: Telemetry, ID: mod}},
		"module, no bag, no slash":        {topic: "devices/edge1/modules/mod1/messages/events", want: Publish{Kind: Telemetry, ID: mod}, print: "devices/edge1/modules/mod1/messages/events/"},
		"module, no bag, two slashes":     {topic: "devices/edge1/modules/mod1/messages/events//", want: Publish{Kind: Telemetry, ID: mod}, print: "devices/edge1/modules/mod1/messages/events/"},
		"module, leading question mark":   {topic: "devices/edge1/modules/mod1/messages/events/?a=1", want: Publish{Kind: Telemetry, ID: mod, Bag: Bag{{"a", "1"}}}, print: "devices/edge1/modules/mod1/messages/events/a=1"},
		"device, bag and slash":           {topic: "devices/edge1/messages/events/a=1/", want: Publish{Kind: Telemetry, ID: device, Bag: Bag{{"a", "1"}}}, print: "devices/edge1/messages/events/a=1"},
		"device, bag, no slash":           {topic: "devices/edge1/messages/events/a=1", want: Publish{Kind: Telemetry, ID: device, Bag: Bag{{"a", "1"}}}},
		"device, no bag, slash":           {topic: "devices/edge1/messages/events/", want: Publish{Kind: Telemetry, ID: device}},
		"device, no bag, no slash":        {topic: "devices/edge1/messages/events", want: Publish{Kind: Telemetry, ID: device}, print: "devices/edge1/messages/events/"},
		"a device called modules":         {topic: "devices/modules/messages/events/", want: Publish{Kind: Telemetry, ID: ID{Device: "modules"}}},
		"a module called messages":        {topic: "devices/d/modules/messages/messages/events/", want: Publish{Kind: Telemetry, ID: ID{"d", "messages"}}},
		"the edge agent's telemetry":      {topic: "devices/d/modules/$edgeAgent/messages/events/", want: Publish{Kind: Telemetry, ID: ID{"d", EdgeAgent}}},
		"plus is literal":                 {topic: "devices/d/messages/events/a+b=c+d", want: Publish{Kind: Telemetry, ID: ID{Device: "d"}, Bag: Bag{{"a+b", "c+d"}}}, print: "devices/d/messages/events/a%2Bb=c%2Bd"},
		"method response":                 {topic: "$iothub/methods/res/200/?$rid=5f", want: Publish{Kind: MethodResponse, Status: 200, RequestID: "5f"}},
		"method response, encoded key":    {topic: "$iothub/methods/res/200/?%24rid=5f", want: Publish{Kind: MethodResponse, Status: 200, RequestID: "5f"}, print: "$iothub/methods/res/200/?$rid=5f"},
		"method response, odd status":     {topic: "$iothub/methods/res/-007/?$rid=1", want: Publish{Kind: MethodResponse, Status: -7, RequestID: "1"}, print: "$iothub/methods/res/-7/?$rid=1"},
		"twin get, a UUID":                {topic: "$iothub/twin/GET/?$rid=3cc4d4b1-7a3b-4b7e-8b6e-1f2f2ef8a1b0", want: Publish{Kind: TwinGet, RequestID: "3cc4d4b1-7a3b-4b7e-8b6e-1f2f2ef8a1b0"}},
		"twin get, a rid that is escaped": {topic: "$iothub/twin/GET/?$rid=a%2Fb=/", want: Publish{Kind: TwinGet, RequestID: "a%2Fb=/"}},
		"twin get, other members":         {topic: "$iothub/twin/GET/?x=%20&$rid=1&y", want: Publish{Kind: TwinGet, RequestID: "1", Bag: Bag{{"x", " "}, {"y", ""}}}, print: "$iothub/twin/GET/?$rid=1&x=%20&y="},
		"twin patch":                      {topic: "$iothub/twin/PATCH/properties/reported/?$rid=42", want: Publish{Kind: TwinPatch, RequestID: "42"}},
		"twin patch that wants no answer": {topic: "$iothub/twin/PATCH/properties/reported/", want: Publish{Kind: TwinPatch}},
		"twin patch, empty rid":           {topic: "$iothub/twin/PATCH/properties/reported/?$rid=", want: Publish{Kind: TwinPatch}, print: "$iothub/twin/PATCH/properties/reported/"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParsePublish(tc.topic)
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Fatalf("got %+v, error %v, want %+v", got, err, tc.want)
			}
			want := tc.print
			if want == "" {
				want = tc.topic
			}
			if got.Topic() != want {
				t.Fatalf("printed %q, want %q", got.Topic(), want)
			}
		})
	}
}

func TestBadPublishTopics(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		topic   string
		unknown bool // a shape that does not exist, rather than a bad part of one that does
	}{
		"empty":                         {"", true},
		"somebody's own topic":          {"sensors/1", true},
		"devices and nothing":           {"devices/", true},
		"a device and nothing":          {"devices/d", true},
		"a module and nothing":          {"devices/d/modules/m", true},
		"no module id":                  {"devices/d/modules//messages/events/", true},
		"another word":                  {"devices/d/messages/event/", true},
		"events run on":                 {"devices/d/messages/eventsx", true},
		"what a server sends":           {"devices/d/messages/devicebound/", true},
		"an input":                      {"devices/d/modules/m/inputs/in/", true},
		"a method call":                 {"$iothub/methods/POST/x/?$rid=1", true},
		"the desired section":           {"$iothub/twin/PATCH/properties/desired/?$rid=1", true},
		"other letters' case":           {"$iothub/twin/get/?$rid=1", true},
		"get without slash":             {"$iothub/twin/GET?$rid=1", true},
		"no device id":                  {"devices//messages/events/", false},
		"bad device id":                 {"devices/a b/messages/events/", false},
		"bad module id":                 {"devices/d/modules/ä/messages/events/", false},
		"long device id":                {"devices/" + strings.Repeat("d", 129) + "/messages/events/", false},
		"too many properties":           {"devices/d/messages/events/" + strings.Repeat("a&", 1025), false},
		"get without rid":               {"$iothub/twin/GET/", false},
		"get with an empty rid":         {"$iothub/twin/GET/?$rid=", false},
		"get without question mark":     {"$iothub/twin/GET/$rid=1", false},
		"a rid with a control":          {"$iothub/twin/GET/?$rid=a\x01", false},
		"a rid too long":                {"$iothub/twin/GET/?$rid=" + strings.Repeat("1", 1025), false},
		"response without rid":          {"$iothub/methods/res/200/", false},
		"response without slash":        {"$iothub/methods/res/200", false},
		"response without status":       {"$iothub/methods/res//?$rid=1", false},
		"response with a word":          {"$iothub/methods/res/ok/?$rid=1", false},
		"response with a plus":          {"$iothub/methods/res/+200/?$rid=1", false},
		"response beyond 32 bits":       {"$iothub/methods/res/2147483648/?$rid=1", false},
		"query of too many members":     {"$iothub/twin/GET/?$rid=1" + strings.Repeat("&a", 1025), false},
		"a zero byte":                   {"devices/d/messages/events/a=\x00", false},
		"not UTF-8":                     {"devices/d/messages/events/a=\xff", false},
		"longer than MQTT allows":       {"devices/d/messages/events/a=" + strings.Repeat("a", MaxTopic), false},
		"a $version that is not number": {"$iothub/twin/GET/?$rid=1&$version=x", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParsePublish(tc.topic)
			if err == nil || !reflect.DeepEqual(got, Publish{}) {
				t.Fatalf("got %+v, error %v, want nothing and an error", got, err)
			}
			if errors.Is(err, ErrUnknownTopic) != tc.unknown {
				t.Fatalf("error %v, want unknown: %t", err, tc.unknown)
			}
		})
	}
}

func TestDeliveryTopics(t *testing.T) {
	t.Parallel()
	mod := ID{"edge1", "mod1"}
	for name, tc := range map[string]struct {
		topic string
		want  Delivery
		print string // "" = topic
	}{
		"an input": {
			topic: "devices/edge1/modules/mod1/inputs/in1/%24.cdid=edge1&%24.cmid=mod0&%24.mid=m%201&foo=a%2Fb",
			want:  Delivery{Kind: Input, ID: mod, Name: "in1", Bag: Bag{{"$.cdid", "edge1"}, {"$.cmid", "mod0"}, {"$.mid", "m 1"}, {"foo", "a/b"}}},
		},
		"an input without properties keeps its slash": {topic: "devices/edge1/modules/mod1/inputs/in1/", want: Delivery{Kind: Input, ID: mod, Name: "in1"}},
		"an input without slash gets it":              {topic: "devices/edge1/modules/mod1/inputs/in1", want: Delivery{Kind: Input, ID: mod, Name: "in1"}, print: "devices/edge1/modules/mod1/inputs/in1/"},
		"an input with an odd name":                   {topic: "devices/d/modules/m/inputs/a b%2F%25%2Bä/", want: Delivery{Kind: Input, ID: ID{"d", "m"}, Name: "a b/%+ä"}},
		"cloud to device": {
			topic: "devices/dev/messages/devicebound/%24.mid=abc&%24.to=%2Fdevices%2Fdev%2Fmessages%2FdeviceBound&iothub-ack=full&prop=1",
			want:  Delivery{Kind: CloudToDevice, ID: ID{Device: "dev"}, Bag: Bag{{"$.mid", "abc"}, {"$.to", "/devices/dev/messages/deviceBound"}, {"iothub-ack", "full"}, {"prop", "1"}}},
		},
		"cloud to device, a null value": {topic: "devices/dev/messages/devicebound/a", want: Delivery{Kind: CloudToDevice, ID: ID{Device: "dev"}, Bag: Bag{{"a", ""}}}, print: "devices/dev/messages/devicebound/a="},
		"cloud to device, no bag":       {topic: "devices/dev/messages/devicebound", want: Delivery{Kind: CloudToDevice, ID: ID{Device: "dev"}}, print: "devices/dev/messages/devicebound/"},
		"a method":                      {topic: "$iothub/methods/POST/reboot/?$rid=a1", want: Delivery{Kind: MethodCall, Name: "reboot", RequestID: "a1"}},
		"a method with an odd name":     {topic: "$iothub/methods/POST/a%2Fb%3F c/?$rid=a1", want: Delivery{Kind: MethodCall, Name: "a/b? c", RequestID: "a1"}},
		"a twin":                        {topic: "$iothub/twin/res/200/?$rid=7", want: Delivery{Kind: TwinResult, Status: 200, RequestID: "7"}},
		"a reported version":            {topic: "$iothub/twin/res/204/?$rid=7&$version=12", want: Delivery{Kind: TwinResult, Status: 204, RequestID: "7", Version: 12}},
		"the other order":               {topic: "$iothub/twin/res/204/?$version=12&$rid=7", want: Delivery{Kind: TwinResult, Status: 204, RequestID: "7", Version: 12}, print: "$iothub/twin/res/204/?$rid=7&$version=12"},
		"a refused patch":               {topic: "$iothub/twin/res/429/?$rid=7", want: Delivery{Kind: TwinResult, Status: 429, RequestID: "7"}},
		"a desired patch":               {topic: "$iothub/twin/PATCH/properties/desired/?$version=9223372036854775807", want: Delivery{Kind: DesiredPatch, Version: 9223372036854775807}},
		"a desired patch, no version":   {topic: "$iothub/twin/PATCH/properties/desired/", want: Delivery{Kind: DesiredPatch}},
		"a desired patch, more members": {topic: "$iothub/twin/PATCH/properties/desired/?$version=3&x=1", want: Delivery{Kind: DesiredPatch, Version: 3, Bag: Bag{{"x", "1"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseDelivery(tc.topic)
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Fatalf("got %+v, error %v, want %+v", got, err, tc.want)
			}
			want := tc.print
			if want == "" {
				want = tc.topic
			}
			if got.Topic() != want {
				t.Fatalf("printed %q, want %q", got.Topic(), want)
			}
		})
	}
}

func TestBadDeliveryTopics(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		topic   string
		unknown bool
	}{
		"empty":                {"", true},
		"telemetry":            {"devices/d/messages/events/", true},
		"a request":            {"$iothub/twin/GET/?$rid=1", true},
		"the reported section": {"$iothub/twin/PATCH/properties/reported/?$rid=1", true},
		"module's devicebound": {"devices/d/modules/m/messages/devicebound/", true},
		"input of a device":    {"devices/d/inputs/in/", true},
		"no input name":        {"devices/d/modules/m/inputs//a=1", false},
		"a long input name":    {"devices/d/modules/m/inputs/" + strings.Repeat("i", MaxName+1) + "/", false},
		"bad device id":        {"devices/a b/messages/devicebound/", false},
		"bad module id":        {"devices/d/modules/a b/inputs/in/", false},
		"no method name":       {"$iothub/methods/POST//?$rid=1", false},
		"method without rid":   {"$iothub/methods/POST/x/", false},
		"method, no slash":     {"$iothub/methods/POST/x?$rid=1", false},
		"result without rid":   {"$iothub/twin/res/200/?$version=1", false},
		"version zero":         {"$iothub/twin/PATCH/properties/desired/?$version=0", false},
		"negative version":     {"$iothub/twin/PATCH/properties/desired/?$version=-1", false},
		"version of 64 bits":   {"$iothub/twin/PATCH/properties/desired/?$version=9223372036854775808", false},
		"bag of a message":     {"devices/d/messages/devicebound/" + strings.Repeat("a&", 1025), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseDelivery(tc.topic)
			if err == nil || !reflect.DeepEqual(got, Delivery{}) {
				t.Fatalf("got %+v, error %v, want nothing and an error", got, err)
			}
			if errors.Is(err, ErrUnknownTopic) != tc.unknown {
				t.Fatalf("error %v, want unknown: %t", err, tc.unknown)
			}
		})
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	mod := ID{"edge1", "mod1"}
	for text, want := range map[string]Filter{
		"devices/edge1/modules/mod1/inputs/#":      {Feature: FeatureInputs, ID: mod},
		"devices/edge1/modules/mod1/#":             {Feature: FeatureInputs, ID: mod, Wide: true},
		"devices/edge1/messages/devicebound/#":     {Feature: FeatureCloudToDevice, ID: ID{Device: "edge1"}},
		"$iothub/methods/POST/#":                   {Feature: FeatureMethods},
		"$iothub/twin/res/#":                       {Feature: FeatureTwinResults},
		"$iothub/twin/PATCH/properties/desired/#":  {Feature: FeatureDesired},
		"devices/d/modules/$edgeHub/inputs/#":      {Feature: FeatureInputs, ID: ID{"d", EdgeHub}},
		"devices/modules/messages/devicebound/#":   {Feature: FeatureCloudToDevice, ID: ID{Device: "modules"}},
		"devices/inputs/modules/messages/inputs/#": {Feature: FeatureInputs, ID: ID{"inputs", "messages"}},
	} {
		got, err := ParseFilter(text)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, error %v, want %+v", text, got, err, want)
		}
		if got.String() != text {
			t.Errorf("printed %q, want %q", got.String(), text)
		}
		if got.Feature.String() == "none" {
			t.Errorf("%s: feature without a name", text)
		}
	}
}

func TestBadFilters(t *testing.T) {
	t.Parallel()
	for text, wantUnknown := range map[string]bool{
		"":                                 true,
		"#":                                true,
		"+/+":                              true,
		"$SYS/#":                           true,
		"devices/#":                        true,
		"devices/+/messages/devicebound/#": true,
		"devices/d/modules/+/inputs/#":     true,
		"devices/d/modules/m/inputs/in1":   true,
		"devices/d/modules/m/inputs/in1/#": true,
		"devices/d/modules/m/messages/#":   true,
		"devices/d/modules/#":              true,
		"devices/d/messages/events/#":      true,
		"devices/d/messages/devicebound/+": true,
		"devices/d/#":                      true,
		"$iothub/#":                        true,
		"$iothub/methods/POST/reboot/#":    true,
		"$iothub/methods/post/#":           true,
		"$iothub/twin/res/200/#":           true,
		"$iothub/twin/PATCH/properties/desired/+":  true,
		"$iothub/twin/PATCH/properties/reported/#": true,
		"devices/a b/messages/devicebound/#":       false,
		"devices//messages/devicebound/#":          false,
		strings.Repeat("d", MaxTopic+1):            false,
	} {
		got, err := ParseFilter(text)
		if err == nil || got != (Filter{}) {
			t.Errorf("%.60s: got %+v, error %v, want an error", text, got, err)
		}
		if errors.Is(err, ErrUnknownTopic) != wantUnknown {
			t.Errorf("%.60s: error %v, want unknown: %t", text, err, wantUnknown)
		}
	}
	if got := (Filter{}).String() + (Publish{}).Topic() + (Delivery{}).Topic(); got != "" {
		t.Errorf("values of no kind print %q", got)
	}
}

var topicSeeds = []string{
	"devices/edge1/modules/mod1/messages/events/%24.on=out1&a=b%20c/",
	"devices/edge1/messages/events",
	"devices/d/messages/events/?a+b=c&=&x",
	"$iothub/methods/res/200/?$rid=5f",
	"$iothub/twin/GET/?$rid=a%2Fb&x=1",
	"$iothub/twin/PATCH/properties/reported/?$rid=42",
	"devices/edge1/modules/mod1/inputs/in 1%2F/%24.cdid=edge1",
	"devices/dev/messages/devicebound/%24.mid=abc&iothub-ack=full",
	"$iothub/methods/POST/a%2Fb/?$rid=a1",
	"$iothub/twin/res/204/?$rid=7&$version=12",
	"$iothub/twin/PATCH/properties/desired/?$version=9",
	"devices/d/modules/m/#",
	"$iothub/twin/res/#",
}

func FuzzPublish(f *testing.F) {
	for _, s := range topicSeeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePublish(s)
		if err != nil {
			if !reflect.DeepEqual(p, Publish{}) {
				t.Fatalf("got %+v beside error %v", p, err)
			}
			return
		}
		text := p.Topic()
		if len(text) > MaxTopic {
			return // printing may lengthen a text that was just short enough
		}
		if again, err := ParsePublish(text); err != nil || !reflect.DeepEqual(again, p) {
			t.Fatalf("%q parses to %+v, prints %q, parses to %+v, error %v", s, p, text, again, err)
		}
	})
}

func FuzzDelivery(f *testing.F) {
	for _, s := range topicSeeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDelivery(s)
		if err != nil {
			if !reflect.DeepEqual(d, Delivery{}) {
				t.Fatalf("got %+v beside error %v", d, err)
			}
			return
		}
		text := d.Topic()
		if len(text) > MaxTopic || len(d.Name)*3 > MaxName {
			return // printing may lengthen a text that was just short enough
		}
		if again, err := ParseDelivery(text); err != nil || !reflect.DeepEqual(again, d) {
			t.Fatalf("%q parses to %+v, prints %q, parses to %+v, error %v", s, d, text, again, err)
		}
	})
}

func FuzzFilter(f *testing.F) {
	for _, s := range topicSeeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		filter, err := ParseFilter(s)
		if err != nil {
			if filter != (Filter{}) {
				t.Fatalf("got %+v beside error %v", filter, err)
			}
			return
		}
		if filter.String() != s {
			t.Fatalf("%q prints as %q", s, filter)
		}
	})
}

func BenchmarkParsePublish(b *testing.B) {
	const topic = "devices/edge1/modules/mod1/messages/events/%24.on=out1&%24.mid=id1&alert=1/"
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParsePublish(topic); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDeliveryTopic(b *testing.B) {
	d := Delivery{Kind: Input, ID: ID{"edge1", "mod1"}, Name: "in1", Bag: Bag{{"$.cdid", "edge1"}, {"$.mid", "m 1"}}}
	b.ReportAllocs()
	for b.Loop() {
		if d.Topic() == "" {
			b.Fatal("no topic")
		}
	}
}
