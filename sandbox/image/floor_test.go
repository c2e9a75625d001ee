package image

import (
	"os"
	"testing"
)

func TestFloorsOfVersion1AreReadAndPrintBackTheSame(t *testing.T) {
	t.Parallel()
	const golden = "testdata/floors.v1.json"
	fl, err := readFloors(golden)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	if got := fl.Modules["demo"]; got.Sequence != 5 || got.Latest != 7 || got.Digest[31] != 0x0a {
		t.Errorf("floor of demo: got %+v", got)
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := fl.print(); err != nil || string(got) != string(want) {
		t.Errorf("printed %s %v, want %s", got, err, want)
	}
}
