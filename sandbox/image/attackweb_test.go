package image

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
)

// webRows are servers that do not what they should.
func webRows(t *testing.T, mux *http.ServeMux, url string) []attackRow {
	t.Helper()
	var rows []attackRow
	add := func(id string, serve http.HandlerFunc, want ...bundle.Code) {
		path := fmt.Sprintf("/web/%d/", len(rows))
		mux.HandleFunc(path, serve)
		rows = append(rows, attackRow{ID: id, Ref: url + path + "x.spb", Want: want})
	}
	for name, m := range misbehaving(t) {
		add("I1 "+name, m.serve, m.want, bundle.ErrChanged) // the one that refuses every range, on a device that has something
	}
	for name := range redirections("") {
		r := redirections(fmt.Sprintf("%s/web/%d/x.spb", url, len(rows)))[name]
		var hops atomic.Int32
		hops.Store(r.hops)
		add("I2 redirect "+name, func(w http.ResponseWriter, q *http.Request) {
			if hops.Add(-1) >= 0 {
				http.Redirect(w, q, r.to, http.StatusFound)
				return
			}
			http.NotFound(w, q)
		}, r.want)
	}
	good := bundletest.Build(t, bundletest.Options{})
	add("A5 cut each time: retry, then reject", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(good[:20]) }, bundle.ErrTruncated)
	// The first connection brings a byte now and then, the second nothing, the third what it should: the rule of stalls cuts the two.
	var tries atomic.Int32
	add("I3 a byte now and then: cut, then gone on with", func(w http.ResponseWriter, r *http.Request) {
		n := tries.Add(1)
		if n > 2 {
			static(w, r, good)
			return
		}
		tick := time.NewTicker(stall / 4)
		defer tick.Stop()
		for _, b := range good {
			if n == 1 {
				_, _ = w.Write([]byte{b})
				flush(w)
			}
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
	}, contained)
	return rows
}

// deltaRows are deltas that are not right, on a device that has the old image.
func deltaRows(t *testing.T, mux *http.ServeMux, url string) []attackRow {
	t.Helper()
	r := three(t)
	name, spd := r.deltas[[2]int{1, 2}].name, r.deltas[[2]int{1, 2}].spd
	var rows []attackRow
	add := func(id string, rot int64, spd []byte) {
		path := fmt.Sprintf("/delta/%d/", len(rows))
		mux.Handle(path, newWeb(map[string][]byte{"2.spb": r.of[2], name: spd}))
		rows = append(rows, attackRow{ID: id, Before: write(t, r.of[1]), Rot: rot, Ref: url + path + "2.spb", Want: []bundle.Code{contained}})
	}
	for what, b := range badDeltas(t) {
		add("G4 delta: "+what+": fallback", 0, b)
	}
	for what, records := range bundletest.BadRecords() {
		add("G4 delta: "+what+": fallback", 0, bundletest.DeltaOf(t, spd[:bundle.DeltaHeaderSize], records))
	}
	add("G5 old image rotten: fallback", 700<<10, spd)
	return rows
}

// registryRows are registries that lie, and signatures that are not the key's.
func (a *attacked) registryRows(t *testing.T) {
	t.Helper()
	add := func(id string, r *ocitest.Registry, ref, digest string, want bundle.Code) {
		a.Rows = append(a.Rows, attackRow{ID: id, Ref: r.Host() + ref, Digest: digest, Want: []bundle.Code{want}})
	}
	for claim, c := range lies() {
		r := c.registry
		if r == nil {
			r = &ocitest.Registry{}
		}
		add(claim+", at a registry", registryOf(t, r), c.ref, c.digest, c.want)
	}
	key := newSigner(t)
	der, err := x509.MarshalPKIXPublicKey(key.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	a.Key = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	for claim, c := range signings(t, key) {
		r := registryOf(t, &ocitest.Registry{})
		c.sign(t, r, r.Tags["team/app:1"])
		a.Signed = append(a.Signed, r.Host())
		add("J4 signature: "+claim, r, c.ref, "", c.want)
	}
}

// badDeltas are what may stand where the delta from the first of three releases to the second should: rows G4 and G5.
func badDeltas(t *testing.T) map[string][]byte {
	t.Helper()
	r := three(t)
	old, next := r.of[1], r.of[2]
	spd, other, back := r.deltas[[2]int{1, 2}].spd, r.deltas[[2]int{1, 3}].spd, r.deltas[[2]int{2, 1}].spd
	_, nextImage := imageOf(t, next)
	_, oldImage := imageOf(t, old)
	h, err := bundle.ParseDeltaHeader(spd[:bundle.DeltaHeaderSize])
	if err != nil {
		t.Fatal(err)
	}
	wrong := clone(nextImage)
	wrong[len(wrong)-1] ^= 1 // right but for its last byte
	var lying bytes.Buffer
	if err := bundle.WriteDelta(&lying, h, oldImage, wrong, nil); err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"to another image": other, "the way back": back, "a flipped bit": flipped(spd, len(spd)/2), "cut short": spd[:len(spd)-9], "empty": nil,
		"a page": []byte("<!doctype html>"), "a bundle": next[:9000], "makes another image": lying.Bytes(), "longer": append(clone(spd), 1),
	}
}
