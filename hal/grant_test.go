package hal

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestAGrantThatIsWrongSaysWhereAndWhatWouldBeRight(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ grant, want string }{
		"a path":              {`"../x"`, `at offset 0: "../x" is no name`},
		"a NUL":               {`"a\u0000"`, `is no name`},
		"unknown rights":      {`"relay-1:x"`, `at offset 8: "x" are no rights: r, w or rw`},
		"an unknown option":   {`"relay-1:rw?dedman=2s"`, `at offset 11: option "dedman": unknown; known are deadman, edges`},
		"a bad second option": {`"imu?rate=1/s&write=0x7-0x1"`, `at offset 13: option "write": "0x7-0x1" is no range`},
		"a doubled option":    {`"imu?rate=1/s&rate=2/s"`, `written twice`},
		"a number":            {`7`, `want name[:r|w|rw]`},
		"an object":           {`{"name":"a","rate":"fast"}`, `rate: "fast" is no rate: write it as 10/s`},
		"no end":              {`"a?safe=Inf"`, `is no number`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if g, err := ParseGrant(json.RawMessage(c.grant)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v; want an error with %q", g, err, c.want)
			}
		})
	}
}

func TestBothFormsOfAGrantMeanTheSame(t *testing.T) {
	t.Parallel()
	short, err := ParseGrant(json.RawMessage(`"imu:rw?write=0x6b,0x1a-0x1d&rate=2/s&optional"`))
	if err != nil {
		t.Fatal(err)
	}
	long, err := ParseGrant(json.RawMessage(`{"name":"imu","rights":"rw","write":["0x6b","0x1a-0x1d"],"rate":"2/s","optional":true}`))
	if err != nil || !reflect.DeepEqual(short, long) {
		t.Errorf("got %+v, %v; want %+v", long, err, short)
	}
}

func FuzzParseGrant(f *testing.F) {
	for _, seed := range []string{`"door"`, `"relay-1:rw?deadman=2s&safe=1"`, `"body:rw?tx=0x321,0x00000100/0x1ffffff0"`, `{"name":"m","rate":"2/s","optional":true}`, `"a?edges=both&handover=keep"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		g, err := ParseGrant(raw)
		if err != nil {
			return
		}
		text, err := json.Marshal(g.String())
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseGrant(text)
		if err != nil || !reflect.DeepEqual(g, again) {
			t.Errorf("got %+v, %v from %s; want %+v", again, err, text, g)
		}
	})
}

func TestARightIsWhatBothTheOwnerAndTheDeploymentWant(t *testing.T) {
	t.Parallel()
	zero := 0.0
	relay := Resource{Name: "relay-1", Kind: KindLine, Allow: []string{"pump"}, Safe: &zero, Rate: 10, Line: &LinePart{Direction: Out}}
	imu := Resource{Name: "imu", Kind: KindI2C, Allow: []string{"*"}, I2C: &I2CPart{Addr: 0x68, RegBytes: 1, Read: []Range{{0, 0x7f}}, Write: []Range{{0x6b, 0x6b}, {0x1a, 0x1d}}}}
	for name, c := range map[string]struct {
		resource Resource
		who      string
		grant    string
		want     string // "" = permitted
	}{
		"an allowed module":       {relay, "pump", `"relay-1:rw?deadman=2s"`, ""},
		"another module":          {relay, "lamp", `"relay-1:rw"`, "does not allow it to module lamp"},
		"the owner's safe value":  {relay, "pump", `"relay-1:rw?safe=1"`, "remove safe"},
		"fewer registers":         {imu, "x", `"imu:rw?write=0x6b"`, ""},
		"more registers":          {imu, "x", `"imu:rw?write=0x6b-0x6c"`, "beyond what the device's configuration allows: [0x6b 0x1a-0x1d]"},
		"a deadman of an input":   {imu, "x", `"imu:rw?deadman=2s"`, "for an output"},
		"identifiers of a relay":  {relay, "pump", `"relay-1:rw?tx=0x1"`, "rx and tx are of CAN"},
		"a deadman without write": {relay, "pump", `"relay-1?deadman=2s"`, "granted to write"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, err := ParseGrant(json.RawMessage(c.grant))
			if err != nil {
				t.Fatal(err)
			}
			_, err = Permit(&c.resource, c.who, &g)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestEveryTouchedRegisterCounts(t *testing.T) {
	t.Parallel()
	e := Effective{Read: true, Write: true, ReadRegs: []Range{{0, 0x7f}}, WriteRegs: []Range{{0x6b, 0x6b}, {0xfe, 0xff}},
		Resource: &Resource{Name: "imu", Kind: KindI2C, I2C: &I2CPart{RegBytes: 1}}}
	for name, c := range map[string]struct {
		op   Op
		want Code
	}{
		"one register":               {Op{Write: []byte{0x6b, 0}}, ""},
		"the last readable":          {Op{Write: []byte{0x7f}, Read: 1}, ""},
		"one past the range":         {Op{Write: []byte{0x80}, Read: 1}, Denied},
		"increment over the end":     {Op{Write: []byte{0x7f}, Read: 2}, Denied},
		"a write that runs on":       {Op{Write: []byte{0x6b, 0, 0}}, Denied},
		"a write around the corner":  {Op{Write: []byte{0xff, 0, 0}}, Denied},
		"a read around the corner":   {Op{Write: []byte{0xff}, Read: 2}, Denied},
		"a bare read":                {Op{Read: 1}, Denied},
		"nothing":                    {Op{}, Denied},
		"too much":                   {Op{Write: []byte{0}, Read: MaxTransfer + 1}, Invalid},
		"a read after its own write": {Op{Write: []byte{0x6b, 1}, Read: 1}, Denied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := e.CheckOps([]Op{c.op})
			if c.want == "" && err != nil || c.want != "" && CodeOf(err) != c.want {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// FuzzRegisterFilter: what is let through touches no byte outside the ranges, whatever the sizes.
func FuzzRegisterFilter(f *testing.F) {
	f.Add([]byte{0x6b, 0}, 0, byte(1), byte(0), byte(0x7f), byte(0x6b), byte(0x6c))
	f.Add([]byte{0x10, 0xff}, 4, byte(2), byte(0x10), byte(0x20), byte(0), byte(0))
	f.Add([]byte{}, 8, byte(1), byte(0), byte(0xff), byte(0), byte(0xff))
	f.Fuzz(func(t *testing.T, w []byte, read int, width, rf, rt, wf, wt byte) {
		n := int(width%2) + 1
		e := Effective{Read: true, Write: true, ReadRegs: []Range{{uint32(rf), uint32(rt)}}, WriteRegs: []Range{{uint32(wf), uint32(wt)}},
			Resource: &Resource{Name: "x", Kind: KindI2C, I2C: &I2CPart{RegBytes: n}}}
		if e.CheckOps([]Op{{Write: w, Read: read}}) != nil {
			return
		}
		first := 0
		for _, b := range w[:n] {
			first = first<<8 | int(b)
		}
		for i := range len(w) - n {
			if at := first + i; at < int(wf) || at > int(wt) {
				t.Fatalf("write of %x: register %#x is touched, granted are %#x-%#x", w, at, wf, wt)
			}
		}
		for i := range read {
			if at := first + i; at < int(rf) || at > int(rt) {
				t.Fatalf("read of %d at %x: register %#x is touched, granted are %#x-%#x", read, w, at, rf, rt)
			}
		}
	})
}
