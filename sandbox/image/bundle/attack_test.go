package bundle_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

// rejects extracts spb with the test key trusted and wants one of the codes. Nothing that was written may be the whole image.
func rejects(t *testing.T, spb []byte, want ...bundle.Code) {
	t.Helper()
	var image bytes.Buffer
	_, err := bundle.Extract(&image, bytes.NewReader(spb), []bundle.PublicKey{bundletest.Key(t, 1).Public()}, nil)
	for _, code := range want {
		if errors.Is(err, code) {
			if line := err.Error(); strings.Contains(line, "\n") || !strings.Contains(line, string(code)) {
				t.Errorf("error %q: want one line with %s", line, code)
			}
			return
		}
	}
	t.Errorf("got %v, want %v", err, want)
}

// refusesAll throws rows of the attack list at the reader.
func refusesAll(t *testing.T, rows []bundletest.Hostile) {
	t.Helper()
	for _, h := range rows {
		t.Run(h.Row, func(t *testing.T) {
			t.Parallel()
			if h.Want != "" {
				rejects(t, h.File, h.Want)
			} else if _, err := bundle.Extract(io.Discard, bytes.NewReader(h.File), []bundle.PublicKey{bundletest.Key(t, 1).Public()}, nil); err != nil {
				t.Errorf("got %v, want it accepted", err)
			}
		})
	}
}

func TestA1ToA6HeadersAndLengthsAreRefused(t *testing.T) {
	t.Parallel()
	refusesAll(t, bundletest.Headers(t))
}

func TestA7OneFlippedBitIsRefusedWhereverItIs(t *testing.T) {
	t.Parallel()
	spb := goldenBundle(t)
	head, err := bundle.ReadHeadUnverified(bytes.NewReader(spb))
	if err != nil {
		t.Fatal(err)
	}
	places := make([]int, 0, 3000)
	for i := range bundle.HeaderSize + int(head.Header.Envelope) {
		places = append(places, i)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		places = append(places, int(head.Header.IndexOffset())+random.IntN(len(spb)-int(head.Header.IndexOffset())))
	}
	trusted := []bundle.PublicKey{bundletest.Key(t, 1).Public()}
	for _, at := range places {
		bit := byte(1) << random.IntN(8)
		spb[at] ^= bit
		if _, err := bundle.Extract(io.Discard, bytes.NewReader(spb), trusted, nil); bundle.CodeOf(err) == "" {
			t.Errorf("bit %#x at byte %d flipped: got %v, want a refusal", bit, at, err)
		}
		spb[at] ^= bit
	}
}
