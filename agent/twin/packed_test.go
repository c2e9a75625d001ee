package twin

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Two hundred twins of some 32 KiB rest as text: a fifth of what their trees would take.
func TestTwinsAtRestTakeLittleMoreThanTheirText(t *testing.T) {
	var text strings.Builder
	text.WriteString(`{`)
	for i := 0; text.Len() < 28<<10; i++ {
		fmt.Fprintf(&text, `%s"sensor%d":{"unit":"C","low":%d.25,"high":%d,"on":true}`, map[bool]string{true: "", false: ","}[i == 0], i, i, i*7)
	}
	text.WriteString(`}`)
	docs := &fakeDocs{}
	k, err := NewKeeper(docs)
	if err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	const twins = 200
	for i := range twins {
		if _, err := k.SetDesired(context.Background(), iothub.ID{Device: "edge1", Module: fmt.Sprint("m", i)}, []byte(text.String())); err != nil {
			t.Fatal(err)
		}
	}
	grown := int64(heap()) - int64(before)
	if limit := int64(twins * text.Len() * 5 / 4); grown > limit {
		t.Errorf("got %d bytes for %d twins of %d, want at most %d", grown, twins, text.Len(), limit)
	}
	runtime.KeepAlive(k)
}

func TestATwinThatTheDiskLostIsNotServedEmpty(t *testing.T) {
	t.Parallel()
	filter, other := iothub.ID{Device: "edge1", Module: "filter"}, iothub.ID{Device: "edge1", Module: "other"}
	for name, c := range map[string]struct {
		docs      Docs
		all       bool
		lostOther bool
	}{
		"one document":  {listed{desiredPrefix + filter.String()}, false, false},
		"all documents": {&fakeDocs{}, true, true},
	} {
		k, err := NewKeeper(c.docs)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c.all {
			k.AllLost()
		}
		if s := k.Snapshot(filter); !s.Lost || s.Known {
			t.Errorf("%s: got %+v, want lost", name, s)
		}
		if s := k.Snapshot(other); s.Lost != c.lostOther {
			t.Errorf("%s: another: got lost %t, want %t", name, s.Lost, c.lostOther)
		}
		if err := k.Replace(t.Context(), filter, []byte(`{"desired":{"a":1,"$version":4},"reported":{"$version":1}}`)); err != nil {
			t.Fatal(err)
		}
		if s := k.Snapshot(filter); s.Lost || !s.Known || string(s.Desired) != `{"a":1}` {
			t.Errorf("%s: after the hub gave it: got %+v", name, s)
		}
	}
}

// listed has keys whose documents are gone.
type listed []string

func (listed) Get(string) ([]byte, error)                { return nil, nil }
func (listed) Put(context.Context, string, []byte) error { return nil }
func (l listed) Keys(prefix string) (keys []string, err error) {
	for _, key := range l {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// fakeDocs takes everything and keeps nothing: only the keeper's own memory counts here.
type fakeDocs struct{}

func (*fakeDocs) Get(string) ([]byte, error)                { return nil, nil }
func (*fakeDocs) Put(context.Context, string, []byte) error { return nil }
func (*fakeDocs) Keys(string) ([]string, error)             { return nil, nil }
