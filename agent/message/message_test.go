package message

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

var (
	device = iothub.ID{Device: "edge1"}
	module = iothub.ID{Device: "edge1", Module: "mod1"}
	at     = time.Date(2024, 2, 29, 12, 0, 0, 123456789, time.FixedZone("", 3600))
)

func TestPublishBecomesMessage(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		bag  iothub.Bag
		want Message
	}{
		"nothing but a body":       {nil, Message{}},
		"an output":                {iothub.Bag{{Key: "$.on", Value: "out1"}}, Message{Output: "out1"}},
		"the first of two outputs": {iothub.Bag{{Key: "$.on", Value: "a"}, {Key: "$.on", Value: "b"}}, Message{Output: "a"}},
		"a claimed sender is dropped": {
			iothub.Bag{{Key: "$.cdid", Value: "edge2"}, {Key: "a", Value: "1"}, {Key: "$.cmid", Value: "x"}, {Key: "$.mid", Value: "m"}},
			Message{Bag: iothub.Bag{{Key: "a", Value: "1"}, {Key: "$.mid", Value: "m"}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := tc.want
			want.Source, want.Body, want.Accepted = module, []byte("x"), time.Date(2024, 2, 29, 11, 0, 0, 123456000, time.UTC)
			got, err := FromPublish(module, tc.bag, []byte("x"), at)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("got %+v, error %v, want %+v", got, err, want)
			}
		})
	}
}

func TestPublishLimits(t *testing.T) {
	t.Parallel()
	full := func(n int) []byte { return make([]byte, n) }
	many := func(n int) iothub.Bag { return slices.Repeat(iothub.Bag{{Key: "k"}}, n) }
	for name, tc := range map[string]struct {
		src  iothub.ID
		bag  iothub.Bag
		body []byte
		want error
	}{
		"256 KiB of body":                {device, nil, full(iothub.MaxMessage), nil},
		"256 KiB of body and properties": {device, iothub.Bag{{Key: "ab", Value: "cd"}}, full(iothub.MaxMessage - 4), nil},
		"one byte more of body":          {device, nil, full(iothub.MaxMessage + 1), ErrTooLarge},
		"one byte more of properties":    {device, iothub.Bag{{Key: "ab", Value: "cde"}}, full(iothub.MaxMessage - 4), ErrTooLarge},
		"1024 properties":                {device, many(1024), nil, nil},
		"1025 properties":                {device, many(1025), nil, ErrTooLarge},
		"nobody":                         {iothub.ID{}, nil, nil, ErrInvalid},
		"a source that is no id":         {iothub.ID{Device: "a b"}, nil, nil, ErrInvalid},
		"a key that is not UTF-8":        {device, iothub.Bag{{Key: "\xff"}}, nil, ErrInvalid},
		"a value that is not UTF-8":      {device, iothub.Bag{{Key: "k", Value: "\xff"}}, nil, ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := FromPublish(tc.src, tc.bag, tc.body, at)
			if !errors.Is(err, tc.want) {
				t.Fatalf("got error %v, want %v", err, tc.want)
			}
			if err != nil {
				if !reflect.DeepEqual(m, Message{}) {
					t.Fatalf("got a message beside error %v", err)
				}
				return
			}
			if again, err := Decode(m.Append(nil)); err != nil || again.Size() != m.Size() {
				t.Fatalf("what is accepted must be storable: got %d bytes, error %v, want %d", again.Size(), err, m.Size())
			}
		})
	}
}

func TestPropertiesThatLeave(t *testing.T) {
	t.Parallel()
	bag := iothub.Bag{
		{Key: "$.mid", Value: "m 1"}, {Key: "$.cid", Value: "c"}, {Key: "$.uid", Value: "u"}, {Key: "$.to", Value: "t"},
		{Key: "$.exp", Value: "e"}, {Key: "$.ct", Value: "application/json"}, {Key: "$.ce", Value: "utf-8"},
		{Key: "$.ifid", Value: "i"}, {Key: "$.sub", Value: "s"}, {Key: "$.ctime", Value: "ti"}, {Key: "$.schema", Value: "sc"},
		{Key: "$.diagid", Value: "d"}, {Key: "$.diagctx", Value: "dc"}, {Key: "iothub-operation", Value: "o"},
		{Key: "ack", Value: "full"}, {Key: "foo", Value: "a/b"},
	}
	for name, tc := range map[string]struct{ got, want string }{
		"upstream gets everything and the output in front": {
			Message{Source: module, Output: "out1", Bag: bag}.Upstream().String(),
			"%24.on=out1&" + bag.String(),
		},
		"upstream without output":   {Message{Source: device, Bag: bag}.Upstream().String(), bag.String()},
		"upstream without anything": {Message{Source: device}.Upstream().String(), ""},
		"an input learns the sender, and not the output": {
			Message{Source: module, Output: "out1", Bag: bag}.Input().String(),
			"%24.cdid=edge1&%24.cmid=mod1&" + bag.Without("$.ifid", "$.diagid", "$.diagctx").String(),
		},
		"an input from a device": {Message{Source: device}.Input().String(), "%24.cdid=edge1"},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: got %q, want %q", name, tc.got, tc.want)
		}
	}
	if got, want := (Message{Output: "out1", Bag: iothub.Bag{{Key: "a", Value: "bc"}}, Body: []byte("body")}).Size(), 4+4+1+2+4; got != want {
		t.Errorf("size: got %d, want %d", got, want)
	}
	if strings.Contains(bag.String(), "%24.on") {
		t.Error("the message's own bag has changed")
	}
}

func TestATimeThatIsFoundLaterIsAPropertyOnce(t *testing.T) {
	t.Parallel()
	plain := Message{Source: device, Body: []byte("x"), Bag: iothub.Bag{{Key: "a", Value: "1"}}}
	for name, tc := range map[string]struct{ got, want string }{
		"known":          {plain.Timed(at, 0).Bag.String(), "a=1&%24.ctime=2024-02-29T11%3A00%3A00.123456Z"},
		"found out":      {plain.Timed(at, 90*time.Second).Bag.String(), "a=1&%24.ctime=2024-02-29T11%3A00%3A00.123456Z&sandpiper-time-uncertainty=91"},
		"said already":   {plain.Timed(at, 0).Timed(at.Add(time.Hour), 0).Bag.String(), "a=1&%24.ctime=2024-02-29T11%3A00%3A00.123456Z"},
		"no room at all": {Message{Body: make([]byte, iothub.MaxMessage)}.Timed(at, 0).Bag.String(), ""},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: got %q, want %q", name, tc.got, tc.want)
		}
	}
	if plain.Bag.String() != "a=1" {
		t.Error("the message's own bag has changed")
	}
}
