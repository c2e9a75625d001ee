package twin

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

var update = flag.Bool("update", false, "rewrite golden files")

var filter = iothub.ID{Device: "edge1", Module: "filter"}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func raw(text string) json.RawMessage { return json.RawMessage(text) }

// watched is a keeper that lists what it tells its listeners.
func watched(t testing.TB, docs Docs) (*Keeper, *[]string) {
	t.Helper()
	k := open(t, docs)
	var told []string
	k.OnDesired(func(c Change) { told = append(told, fmt.Sprintf("%s desired %d %s", c.ID, c.Version, c.Patch)) })
	k.OnReported(func(id iothub.ID, patch json.RawMessage) {
		told = append(told, fmt.Sprintf("%s reported %s", id, patch))
	})
	return k, &told
}

func expect(t testing.TB, what string, got *[]string, want ...string) {
	t.Helper()
	if !slices.Equal(*got, want) {
		t.Errorf("%s: told\n  %s\nwant\n  %s", what, strings.Join(*got, "\n  "), strings.Join(want, "\n  "))
	}
	*got = nil
}

func expectClient(t testing.TB, k *Keeper, want string) {
	t.Helper()
	if got := string(k.Snapshot(filter).Client()); got != want {
		t.Errorf("client twin: got %s, want %s", got, want)
	}
}

func TestUnknownTwinHasVersions(t *testing.T) {
	t.Parallel()
	k := open(t, newMemory())
	expectClient(t, k, `{"desired":{"$version":1},"reported":{"$version":1}}`)
	if got, want := string(Snapshot{}.Client()), `{"desired":{"$version":1},"reported":{"$version":1}}`; got != want {
		t.Errorf("zero snapshot: got %s, want %s", got, want)
	}
	if k.Snapshot(filter).Known || len(k.IDs()) != 0 {
		t.Errorf("reading made a twin: %v", k.IDs())
	}
	if _, ok := k.DesiredSince(filter, 0); ok {
		t.Error("an unknown twin has news")
	}
	if _, _, ok := k.Pending(filter); ok {
		t.Error("an unknown twin has something pending")
	}
}

func TestSetDesired(t *testing.T) {
	t.Parallel()
	ctx, docs := t.Context(), newMemory()
	k, told := watched(t, docs)
	change, err := k.SetDesired(ctx, filter, raw(`{"a":1,"o":{"p":1,"q":[1]},"$version":99}`))
	must(t, err)
	if change.Version != 2 || string(change.Patch) != `{"a":1,"o":{"p":1,"q":[1]},"$version":2}` {
		t.Errorf("got %d %s", change.Version, change.Patch)
	}
	_, err = k.SetDesired(ctx, filter, raw(`{"o":{"q":[1]},"b":null}`))
	must(t, err)
	expect(t, "two deployments", told,
		`edge1/filter desired 2 {"a":1,"o":{"p":1,"q":[1]},"$version":2}`,
		`edge1/filter desired 3 {"a":null,"o":{"p":null},"$version":3}`)

	change, err = k.SetDesired(ctx, filter, raw(`{"o":{"q":[1]}}`))
	must(t, err)
	if change.Version != 0 || change.Patch != nil {
		t.Errorf("the same section again: got %+v, want no change", change)
	}
	var limit *LimitError
	if _, err := k.SetDesired(ctx, filter, raw(`{"a.b":1}`)); !errors.As(err, &limit) {
		t.Errorf("a bad key: got %v, want a *LimitError", err)
	}
	expect(t, "no change", told)
	expectClient(t, open(t, docs), `{"desired":{"o":{"q":[1]},"$version":3},"reported":{"$version":1}}`)
}

func TestApplyDesired(t *testing.T) {
	t.Parallel()
	ctx, docs := t.Context(), newMemory()
	k, told := watched(t, docs)
	apply := func(patch string, wantGap bool) {
		t.Helper()
		gap, err := k.ApplyDesired(ctx, filter, raw(patch))
		must(t, err)
		if gap != wantGap {
			t.Errorf("%s: gap %v, want %v", patch, gap, wantGap)
		}
	}
	apply(`{"a":1,"$version":2}`, true) // of an unknown twin
	must(t, k.Replace(ctx, filter, raw(`{"desired":{"a":1,"b":2,"$version":4,"$metadata":{"$lastUpdated":"x"}},"reported":{"r":1,"$version":9}}`)))
	apply(`{"a":3,"$version":4}`, false) // already here
	apply(`{"b":null,"zz":null,"$version":5,"$metadata":{}}`, false)
	apply(`{"a":3,"$version":7}`, true)
	must(t, k.Replace(ctx, filter, raw(`{"desired":{"a":3,"c":{"d":1},"$version":7},"reported":{"r":1,"$version":9}}`)))
	must(t, k.Replace(ctx, filter, raw(`{"desired":{"a":3,"c":{"d":1},"$version":7},"reported":{"r":1,"$version":9}}`)))
	expect(t, "patches and gaps", told,
		`edge1/filter desired 4 {"a":1,"b":2,"$version":4}`,
		`edge1/filter desired 5 {"b":null,"zz":null,"$version":5}`,
		`edge1/filter desired 7 {"a":3,"c":{"d":1},"$version":7}`)
	expectClient(t, open(t, docs), `{"desired":{"a":3,"c":{"d":1},"$version":7},"reported":{"r":1,"$version":9}}`)

	for _, bad := range []string{`{"a":1}`, `[]`, `{"$version":-1}`} {
		if _, err := k.ApplyDesired(ctx, filter, raw(bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
	must(t, k.Replace(ctx, filter, raw(`{"desired":{"n":1,"$version":2}}`)))
	expect(t, "a twin made anew on the hub", told, `edge1/filter desired 2 {"a":null,"c":null,"n":1,"$version":2}`)
}

func TestReplaceRefusesWhatIsNoTwin(t *testing.T) {
	t.Parallel()
	for name, whole := range map[string]string{
		"no JSON":             `{`,
		"desired is a list":   `{"desired":[]}`,
		"reported is a text":  `{"desired":{},"reported":"x"}`,
		"a version is a text": `{"desired":{"$version":"1"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, told := watched(t, newMemory())
			if err := k.Replace(t.Context(), filter, raw(whole)); err == nil {
				t.Error("accepted")
			}
			expect(t, "a refused twin", told)
			if k.Snapshot(filter).Known {
				t.Error("the twin is known now")
			}
		})
	}
}

func TestDesiredSince(t *testing.T) {
	t.Parallel()
	ctx, docs := t.Context(), newMemory()
	k := open(t, docs)
	must(t, k.Replace(ctx, filter, raw(`{"desired":{"first":1,"o":{"x":1},"$version":3}}`)))
	for v, patch := range []string{`"first":null`, `"o":null`, `"o":{"y":1}`, `"n":1`} {
		_, err := k.ApplyDesired(ctx, filter, raw(fmt.Sprintf(`{%s,"$version":%d}`, patch, v+4)))
		must(t, err)
	}
	k = open(t, docs)
	for version, want := range map[int64]string{
		7:  "",
		6:  `{"n":1,"$version":7}`,
		5:  `{"n":1,"o":{"y":1},"$version":7}`,
		4:  `{"n":1,"o":{"x":null,"y":1},"$version":7}`, // exact although o was deleted on the way
		3:  `{"first":null,"n":1,"o":{"x":null,"y":1},"$version":7}`,
		2:  `{"first":null,"n":1,"o":{"y":1},"$version":7}`, // not remembered: whole, and what is gone
		99: `{"first":null,"n":1,"o":{"y":1},"$version":7}`,
	} {
		change, ok := k.DesiredSince(filter, version)
		if ok != (want != "") || string(change.Patch) != want || ok && change.Version != 7 {
			t.Errorf("since %d: got %d %s, want %s", version, change.Version, change.Patch, want)
		}
	}
	for v := int64(8); v < 20; v++ {
		_, err := k.ApplyDesired(ctx, filter, raw(fmt.Sprintf(`{"n":%d,"$version":%d}`, v, v)))
		must(t, err)
	}
	if got := len(k.peek(filter).desired.Load().open().ring); got != ringSteps {
		t.Errorf("ring: got %d steps, want %d", got, ringSteps)
	}
	if change, _ := k.DesiredSince(filter, 11); string(change.Patch) != `{"n":19,"$version":19}` {
		t.Errorf("since the oldest remembered: got %s", change.Patch)
	}
	for v := int64(20); v < 24; v++ {
		_, err := k.ApplyDesired(ctx, filter, raw(fmt.Sprintf(`{"n":["%s",%d],"$version":%d}`, strings.Repeat("x", 7000), v, v)))
		must(t, err)
	}
	if got := len(k.peek(filter).desired.Load().open().ring); got != 2 {
		t.Errorf("ring of large steps: got %d, want 2", got)
	}
}

func TestPatchReported(t *testing.T) {
	t.Parallel()
	ctx, docs := t.Context(), newMemory()
	k, told := watched(t, docs)
	patch := func(text string, wantVersion int64) {
		t.Helper()
		version, err := k.PatchReported(ctx, filter, []byte(text))
		must(t, err)
		if version != wantVersion {
			t.Errorf("%s: version %d, want %d", text, version, wantVersion)
		}
	}
	patch(`{"a":1,"b":2}`, 2)
	patch(`{"a":null,"$version":7}`, 3)
	patch(`{}`, 4)
	expect(t, "reports", told, `edge1/filter reported {"a":1,"b":2}`, `edge1/filter reported {"a":null}`, `edge1/filter reported {}`)
	expectClient(t, k, `{"desired":{"$version":1},"reported":{"b":2,"$version":4}}`)
	k = open(t, docs)
	expectClient(t, k, `{"desired":{"$version":1},"reported":{"b":2,"$version":4}}`)
	if got, _, ok := k.Pending(filter); !ok || string(got) != `{"a":null,"b":2}` {
		t.Errorf("pending after reopening: got %s, %v", got, ok)
	}

	for name, bad := range map[string]string{"no JSON": `x`, "empty": ``, "a bad key": `{"a b":1}`, "too large": big(9, 4000), "too large together": big(8, 4092)} {
		var limit *LimitError
		if _, err := k.PatchReported(ctx, filter, []byte(bad)); !errors.As(err, &limit) {
			t.Errorf("%s: got %v, want a *LimitError", name, err)
		}
	}
	expectClient(t, k, `{"desired":{"$version":1},"reported":{"b":2,"$version":4}}`)
}

func TestSectionOverTheLimitMayShrink(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	k := open(t, newMemory())
	must(t, k.Replace(ctx, filter, raw(`{"desired":{},"reported":`+big(10, 4000)+`}`)))
	if _, err := k.PatchReported(ctx, filter, []byte(`{"n":1}`)); err == nil {
		t.Error("the section grew")
	}
	_, err := k.PatchReported(ctx, filter, []byte(`{"keya":null}`))
	must(t, err)
}

func TestForget(t *testing.T) {
	t.Parallel()
	ctx, docs := t.Context(), newMemory()
	k := open(t, docs)
	other := iothub.ID{Device: "edge1"}
	for _, id := range []iothub.ID{filter, other} {
		must(t, k.Replace(ctx, id, raw(`{"desired":{"a":1,"$version":3}}`)))
		_, err := k.PatchReported(ctx, id, []byte(`{"r":1}`))
		must(t, err)
	}
	must(t, k.Forget(ctx, filter))
	must(t, k.Forget(ctx, filter))
	expectClient(t, k, `{"desired":{"$version":1},"reported":{"$version":1}}`)
	for _, k := range []*Keeper{k, open(t, docs)} {
		if got := k.IDs(); !slices.Equal(got, []iothub.ID{other}) {
			t.Errorf("ids: got %v, want %v", got, other)
		}
	}
}

func TestCallbacksComeInOrderAndMayCallBack(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	k := open(t, newMemory())
	var mu sync.Mutex
	var versions []int64
	reports := 0
	k.OnDesired(func(c Change) {
		mu.Lock()
		defer mu.Unlock()
		if have := k.Snapshot(c.ID).DesiredVersion; have < c.Version {
			t.Errorf("told of version %d before it is there (%d)", c.Version, have)
		}
		versions = append(versions, c.Version)
		if _, err := k.PatchReported(ctx, c.ID, []byte(fmt.Sprintf(`{"saw":%d}`, c.Version))); err != nil {
			t.Error(err)
		}
	})
	k.OnReported(func(iothub.ID, json.RawMessage) { reports++ })
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 20 {
				if _, err := k.SetDesired(ctx, filter, raw(fmt.Sprintf(`{"w":%d,"i":%d}`, w, i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if len(versions) != 160 || !slices.IsSorted(versions) || versions[0] != 2 || versions[159] != 161 || reports != 160 {
		t.Errorf("got %d reports and versions %v", reports, versions)
	}
}

func TestFailedPutChangesNothing(t *testing.T) {
	t.Parallel()
	ctx, docs := t.Context(), newMemory()
	k, told := watched(t, docs)
	must(t, k.Replace(ctx, filter, raw(`{"desired":{"a":1,"$version":3},"reported":{"r":1,"$version":5}}`)))
	_, err := k.PatchReported(ctx, filter, []byte(`{"r":2}`))
	must(t, err)
	_, mark, _ := k.Pending(filter)
	*told = nil
	before := string(k.Snapshot(filter).Client())
	docs.fail = func(int) (bool, bool) { return true, false }
	gone, cancel := context.WithCancel(ctx)
	cancel()
	for name, act := range map[string]func(ctx context.Context) error{
		"set": func(ctx context.Context) error { _, err := k.SetDesired(ctx, filter, raw(`{"a":2}`)); return err },
		"apply": func(ctx context.Context) error {
			_, err := k.ApplyDesired(ctx, filter, raw(`{"a":2,"$version":4}`))
			return err
		},
		"replace": func(ctx context.Context) error { return k.Replace(ctx, filter, raw(`{"desired":{"$version":9}}`)) },
		"patch":   func(ctx context.Context) error { _, err := k.PatchReported(ctx, filter, []byte(`{"q":1}`)); return err },
		"sent":    func(ctx context.Context) error { return k.Sent(ctx, filter, mark) },
		"forget":  func(ctx context.Context) error { return k.Forget(ctx, filter) },
	} {
		if err := act(ctx); !errors.Is(err, errDisk) {
			t.Errorf("%s: got %v, want %v", name, err, errDisk)
		}
		if err := act(gone); !errors.Is(err, context.Canceled) && !errors.Is(err, errDisk) {
			t.Errorf("%s without time: got %v", name, err)
		}
	}
	if got := string(k.Snapshot(filter).Client()); got != before {
		t.Errorf("got %s, want %s", got, before)
	}
	if got, _, _ := k.Pending(filter); string(got) != `{"r":2}` {
		t.Errorf("pending: got %s", got)
	}
	expect(t, "nothing durable", told)
}

func TestUnreadableDocumentIsNotServedEmpty(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ key, doc, want string }{
		"torn desired":        {"twin/desired/edge1/filter", `{"v":1,"vers`, "load twin/desired/edge1/filter: unexpected EOF"},
		"empty desired":       {"twin/desired/edge1/filter", ``, "load twin/desired/edge1/filter: EOF"},
		"reported of later":   {"twin/reported/edge1/filter", `{"v":2,"version":1,"base":{}}`, "load twin/reported/edge1/filter: document version 2; this agent reads 1: install the agent that wrote it"},
		"desired of nothing":  {"twin/desired/edge1/filter", `{"v":1}`, "load twin/desired/edge1/filter: section of version 0 is incomplete"},
		"reported of nothing": {"twin/reported/edge1/filter", `{"v":1,"version":3}`, "load twin/reported/edge1/filter: section of version 3 is incomplete"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			docs := newMemory()
			docs.docs[c.key] = []byte(c.doc)
			k, err := NewKeeper(docs)
			if k != nil || err == nil || err.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// TestDocumentsOfVersion1 holds the form on disk still: an agent that cannot read these files loses twins.
func TestDocumentsOfVersion1(t *testing.T) {
	t.Parallel()
	ctx, docs := t.Context(), newMemory()
	k := open(t, docs)
	must(t, k.Replace(ctx, filter, raw(`{"desired":{"a":1,"gone":{"x":1},"$version":3},"reported":{"r":{"old":1},"$version":5}}`)))
	_, err := k.ApplyDesired(ctx, filter, raw(`{"gone":null,"n":1.50,"$version":4}`))
	must(t, err)
	for _, patch := range []string{`{"r":null,"s":null}`, `{"r":{"new":true}}`} {
		_, err := k.PatchReported(ctx, filter, []byte(patch))
		must(t, err)
	}
	for _, section := range []string{"desired", "reported"} {
		path := filepath.Join("testdata", section+".v1.json")
		got := string(docs.docs["twin/"+section+"/edge1/filter"]) + "\n"
		if *update {
			must(t, os.WriteFile(path, []byte(got), 0o644))
		}
		want, err := os.ReadFile(path)
		must(t, err)
		if got != string(want) {
			t.Errorf("%s:\ngot  %swant %s", path, got, want)
		}
		docs.docs["twin/"+section+"/edge1/filter"] = want
	}
	k = open(t, docs)
	expectClient(t, k, `{"desired":{"a":1,"n":1.50,"$version":4},"reported":{"r":{"new":true},"$version":7}}`)
	if got, _, _ := k.Pending(filter); string(got) != `{"r":{"new":true,"old":null},"s":null}` {
		t.Errorf("pending: got %s", got)
	}
	if got, _ := k.DesiredSince(filter, 3); string(got.Patch) != `{"gone":null,"n":1.50,"$version":4}` {
		t.Errorf("since 3: got %s", got.Patch)
	}
}
