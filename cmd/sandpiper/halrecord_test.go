package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

const recordedBoard = `[[hal.line]]
name = "door"
chip = "pinctrl-bcm2711"
line = "GPIO27"
direction = "in"
[[hal.i2c]]
adapter = "i2c@1"
device = [{name = "imu", addr = 0x68, reg_bytes = 1, read = ["0x00-0x7f"]}]
`

func TestWhatIsRecordedOfADeviceIsPlayedByASimulatedOne(t *testing.T) {
	t.Parallel()
	d := startDevice(t, "[hal]\nbackend = \"sim\"\n"+recordedBoard)
	if got := d.hal("record", "nothing"); !strings.Contains(got, "nothing: unknown: ") || !strings.Contains(got, "known are [door imu]") {
		t.Errorf("a name of nothing: got %s", got)
	}
	file := d.path("door.jsonl")
	ctx, interrupt := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"--run-dir", d.path("run"), "hal", "record", "door", "imu", "-o", file, "--for", "1h", "--json"}, strings.NewReader(""), &out, &errs)
	}()
	lines := func() int {
		raw, _ := os.ReadFile(file) // it may not be there yet
		return bytes.Count(raw, []byte("\n"))
	}
	d.until("it records", func() (bool, string) { return lines() > 0, errs.String() })
	if got := d.hal("record", "imu"); !strings.Contains(got, "recorded already") {
		t.Errorf("a second recorder: got %s, want busy", got)
	}
	for i, v := range []string{"1", "0"} {
		d.hal("sim", "set", "door", v)
		d.until("the edge is written down", func() (bool, string) { return lines() == 2+i, errs.String() })
	}
	interrupt()
	if code := <-ended; code != 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	var sum recorded
	if err := json.Unmarshal(out.Bytes(), &sum); err != nil || sum.Records != 2 || sum.Gaps != 0 || sum.Ended != "interrupt" || sum.File != file {
		t.Errorf("got %+v, %v from %s", sum, err, out.String())
	}
	d.until("the first has let go, and without a file the recording is printed", func() (bool, string) {
		got := d.hal("record", "door", "--for", "10ms")
		return strings.Contains(got, `{"recording":1,`), got
	})

	again := startDevice(t, "[hal]\nbackend = \"sim\"\nreplay = \""+file+"\"\n"+recordedBoard)
	got := again.hal("watch", "door", "-n", "4")
	if strings.Count(got, "rising") != 2 || strings.Count(got, "falling") != 2 {
		t.Errorf("played twice: got\n%s\nwant two of each edge", got)
	}
}
