package twin

import (
	"fmt"
	"strings"
	"testing"
)

func TestSentDropsExactlyWhatWasSent(t *testing.T) {
	t.Parallel()
	ctx, docs := t.Context(), newMemory()
	k := open(t, docs)
	report := func(text string) {
		t.Helper()
		_, err := k.PatchReported(ctx, filter, []byte(text))
		must(t, err)
	}
	pending := func(want string) uint64 {
		t.Helper()
		got, mark, ok := k.Pending(filter)
		if string(got) != want || ok != (want != "") {
			t.Errorf("pending: got %s, %v, want %s", got, ok, want)
		}
		return mark
	}
	report(`{"a":1,"b":1}`)
	first := pending(`{"a":1,"b":1}`)
	if again := pending(`{"a":1,"b":1}`); again != first {
		t.Errorf("asking again: mark %d, want %d", again, first)
	}
	report(`{"a":2,"c":1}`)
	must(t, k.Sent(ctx, filter, first))
	second := pending(`{"a":2,"c":1}`)
	report(`{"c":null}`)
	third := pending(`{"a":2,"c":null}`)
	must(t, k.Sent(ctx, filter, second)) // the answer to an earlier question comes late
	pending(`{"c":null}`)
	must(t, k.Sent(ctx, filter, third))
	pending("")
	must(t, k.Sent(ctx, filter, third))
	must(t, k.Sent(ctx, filter, 0))
	expectClient(t, open(t, docs), `{"desired":{"$version":1},"reported":{"a":2,"b":1,"$version":4}}`)

	for i := range 2 * maxSegments {
		report(fmt.Sprintf(`{"n":%d}`, i))
		_, _, _ = k.Pending(filter)
	}
	if got := len(k.peek(filter).reported.Load().open().segments); got != maxSegments {
		t.Errorf("segments: got %d, want %d", got, maxSegments)
	}
	must(t, k.Sent(ctx, filter, pending(`{"n":7}`)))
	pending("")
}

func TestReplacedObjectsReachTheHubExactly(t *testing.T) {
	t.Parallel()
	ctx, docs := t.Context(), newMemory()
	k := open(t, docs)
	must(t, k.Replace(ctx, filter, raw(`{"desired":{},"reported":{"a":{"old":1,"in":{"x":1}},"$version":3}}`)))
	for _, patch := range []string{`{"a":null}`, `{"a":{"in":{"y":1}}}`} {
		_, err := k.PatchReported(ctx, filter, []byte(patch))
		must(t, err)
	}
	k = open(t, docs)
	const want = `{"a":{"in":{"x":null,"y":1},"old":null}}`
	if got, _, _ := k.Pending(filter); string(got) != want {
		t.Errorf("pending: got %s, want %s", got, want)
	}
	must(t, k.Replace(ctx, filter, raw(`{"desired":{},"reported":{"a":{"other":1},"$version":9}}`)))
	expectClient(t, k, `{"desired":{"$version":1},"reported":{"a":{"in":{"y":1}},"$version":9}}`)
}

func TestPendingLargerThanASectionIsSentInTwo(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	k := open(t, newMemory())
	names := func(prefix string, value string) string {
		var members []string
		for i := range 40 {
			members = append(members, fmt.Sprintf(`"%s%d%s":%s`, prefix, i, strings.Repeat("k", 790), value))
		}
		return "{" + strings.Join(members, ",") + "}"
	}
	must(t, k.Replace(ctx, filter, raw(`{"desired":{},"reported":`+names("a", "1")+`}`)))
	for _, patch := range []string{names("a", "null"), names("b", "2")} {
		_, err := k.PatchReported(ctx, filter, []byte(patch))
		must(t, err)
	}
	for _, want := range []string{names("a", "null"), names("b", "2")} {
		got, mark, _ := k.Pending(filter)
		if len(Diff(object(t, want), object(t, string(got)))) != 0 {
			t.Errorf("pending %.60s…, want %.60s…", got, want)
		}
		must(t, k.Sent(ctx, filter, mark))
	}
	if got, _, ok := k.Pending(filter); ok {
		t.Errorf("something is left: %s", got)
	}
}

func TestPendingDoesNotGrowWithoutEnd(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	k := open(t, newMemory())
	must(t, k.Replace(ctx, filter, raw(`{"desired":{},"reported":{"held":1}}`)))
	_, err := k.PatchReported(ctx, filter, []byte(`{"held":null}`))
	must(t, err)
	for i := range 300 {
		name := fmt.Sprintf("%d%s", i, strings.Repeat("k", 900))
		for _, value := range []string{"1", "null"} {
			_, err := k.PatchReported(ctx, filter, []byte(`{"`+name+`":`+value+`}`))
			must(t, err)
		}
	}
	got, _, _ := k.Pending(filter)
	if len(got) > pendingBytes+2048 || !strings.Contains(string(got), `"held":null`) {
		t.Errorf("pending has %d bytes: %.80s", len(got), got)
	}
}
