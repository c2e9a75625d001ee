package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

func TestAColumnOfAFileIsReadOrRefusedWithItsLine(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		column, text string
		want         []float64
		fault        string
	}{
		"numbers alone":                      {"", "1\n2.5\n\n-3\n", []float64{1, 2.5, -3}, ""},
		"a name and numbers":                 {"", "level\r\n1\r\n2\r\n", []float64{1, 2}, ""},
		"one of several":                     {"level", "time,level,pump\n08:00,20.5,0\n08:01,21,1", []float64{20.5, 21}, ""},
		"as a spreadsheet writes it":         {"Level", "\ufeff\"Time\";\"Level\"\n\"a\";\"20,5\"\n\"b\";\"21\"\n", []float64{20.5, 21}, ""},
		"with remarks":                       {"b", "# from the plant\na\tb\n1\t2\n", []float64{2}, ""},
		"a separator in a name":              {"level", "\"time, local\",level\n\"08:00, Monday\",20\n", []float64{20}, ""},
		"no such column":                     {"lvl", "time,level\n1,2\n", nil, `1: no column "lvl"; the first row has time, level`},
		"several and none is named":          {"", "time,level\n1,2\n", nil, "1: several columns; add column"},
		"a word":                             {"level", "time,level\n1,2\n\n2,dry\n", nil, `4: "dry" is no number`},
		"a gap":                              {"level", "time,level\n1\n", nil, "2: 1 cells; the column is the 2. one"},
		"what is no value":                   {"", "1\nNaN\n", nil, `2: "NaN" is no number`},
		"nothing":                            {"", "level\n", nil, "no number"},
		"more rows than are played":          {"", strings.Repeat("1\n", maxColumnRows+1), nil, fmt.Sprintf("%d: at most", maxColumnRows+1)},
		"a file that is too long":            {"", "1\n" + strings.Repeat("#"+strings.Repeat("x", 999)+"\n", maxColumnBytes/1000), nil, "at most 4 MiB"},
		"a line that is longer than a line":  {"", "1\n" + strings.Repeat("x", 1<<17), nil, "2: "},
		"a first row that is longer than it": {"x", strings.Repeat("n", 5000) + "\n", nil, `no column "x"`},
	} {
		got, err := readColumn(strings.NewReader(c.text), c.column)
		if c.fault == "" && (err != nil || !slices.Equal(got, c.want)) {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, c.want)
		}
		if c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault) || len(err.Error()) > 300) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.fault)
		}
	}
}

func FuzzColumn(f *testing.F) {
	f.Add("level", "time;level\n1;2,5\n")
	f.Add("", "1\n2\n")
	f.Fuzz(func(t *testing.T, column, text string) {
		list, err := readColumn(strings.NewReader(text), column)
		if (err == nil) != (len(list) > 0) {
			t.Errorf("got %v, %v", list, err)
		}
		for _, v := range list {
			if v-v != 0 {
				t.Errorf("got %v, which is no reading", v)
			}
		}
	})
}

func TestASimulatedInputPlaysItsColumnFromTheFirstRowAndMakesEdgesOfIt(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "plant.csv")
	if err := os.WriteFile(file, []byte("level,door\n20,0\n30,1\n40,1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("[hal]\nbackend = \"sim\"\n[[hal.sensor]]\nname = \"level\"\nsource = {iio = \"x\"}\nallow = [\"*\"]\nsim = {csv = %q, column = \"level\", period = \"1m\"}\n"+
		"[[hal.line]]\nname = \"door\"\nchip = \"x\"\noffset = 1\ndirection = \"in\"\nallow = [\"*\"]\nsim = {csv = %q, column = \"door\", period = \"1m\"}\n", file, file)
	c, err := Parse("config.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		<-time.After(100*time.Minute + 17*time.Second)
		if err := loadColumns(&c.Hal, time.Now()); err != nil {
			t.Fatal(err)
		}
		list, err := c.Hal.Resources()
		if err != nil {
			t.Fatal(err)
		}
		s := pinsOn(t, hal.NewSim(), list...)
		w, err := s.Watch(t.Context(), hal.Operator, "door", 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []float64{20, 30, 40, 20, 30} {
			if v, err := s.Read(t.Context(), hal.Operator, "level", hal.ClassRead, 0); err != nil || v.Num != want {
				t.Errorf("got %v, %v, want %v", v.Num, err, want)
			}
			<-time.After(time.Minute)
		}
		var got []hal.Edge
		for len(got) < 3 {
			var e [8]hal.Event
			n, err := w.Next(t.Context(), e[:])
			if err != nil {
				t.Fatal(err)
			}
			for _, one := range e[:n] {
				got = append(got, one.Edge)
			}
		}
		if want := []hal.Edge{hal.Rising, hal.Falling, hal.Rising}; !slices.Equal(got[:3], want) {
			t.Errorf("got edges %v, want %v", got, want)
		}
	})
}

func TestWhatASimulatedInputPlaysIsOneThing(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{csv = "/nowhere.csv", period = "1s"}`:                   "no such file",
		`{csv = "/nowhere.csv"}`:                                  "csv needs the time of one row",
		`{column = "level"}`:                                      "add csv",
		`{csv = "/nowhere.csv", period = "1s", wave = "sine"}`:    "remove those",
		`{csv = "/nowhere.csv", period = "1s", wire = "relay-1"}`: "remove those",
	} {
		c, err := Parse("config.toml", []byte("[hal]\nbackend = \"sim\"\n[[hal.sensor]]\nname = \"level\"\nsource = {iio = \"x\"}\nsim = "+text+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		if err := loadColumns(&c.Hal, time.Now()); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "sensor.0.sim: ") {
			t.Errorf("%s: got %v, want an error of sensor.0.sim with %q", text, err, want)
		}
	}
}

// pinsOn serves a board until the test ends.
func pinsOn(t *testing.T, board hal.Backend, resources ...hal.Resource) *hal.Server {
	t.Helper()
	s, err := hal.New(hal.ServerConfig{Resources: resources, Backend: board})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}
