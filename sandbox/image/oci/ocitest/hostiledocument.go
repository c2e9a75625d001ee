package ocitest

import (
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// Documents are rows J1 and J3: indexes, manifests and configs that are not what they should be.
func Documents(t testing.TB) []Hostile {
	t.Helper()
	layer := Tar(t, File("a", "1"))
	good := func(l *Layout) Object { return l.Image(Object{}, layer) }
	forPlatform := func(d Object, arch string) Object {
		d["platform"] = Object{"os": "linux", "architecture": arch}
		return d
	}
	changed := func(change func(l *Layout, m Object)) func(*Layout) []Object {
		return func(l *Layout) []Object {
			m := Object{
				"schemaVersion": 2, "config": l.JSON(TypeConfig, Config(Object{}, Sum(layer))), "layers": []Object{l.Blob(TypeTar, layer)},
			}
			change(l, m)
			return []Object{l.JSON(TypeManifest, m)}
		}
	}
	config := func(c Object) func(*Layout) []Object {
		return changed(func(l *Layout, m Object) { m["config"] = l.JSON(TypeConfig, c) })
	}
	var rows []Hostile
	for row, c := range map[string]struct {
		make func(l *Layout) []Object
		want bundle.Code
	}{
		"J1 no platform of ours": {func(l *Layout) []Object {
			return []Object{forPlatform(good(l), "s390x"), forPlatform(good(l), "riscv64")}
		}, bundle.ErrOCI},
		"J1 index in index": {func(l *Layout) []Object {
			d := good(l)
			for range 100 {
				d = l.JSON(TypeIndex, Object{"schemaVersion": 2, "manifests": []Object{d}})
			}
			return []Object{d}
		}, bundle.ErrOCI},
		"J1 config as manifest": {func(l *Layout) []Object {
			d := l.JSON(TypeConfig, Config(Object{}, Sum(layer)))
			d["mediaType"] = TypeManifest
			return []Object{d}
		}, bundle.ErrOCI},
		"J1 manifest as index": {func(l *Layout) []Object {
			d := good(l)
			d["mediaType"] = TypeIndex
			return []Object{d}
		}, bundle.ErrOCI},
		"J1 both at once":          {changed(func(l *Layout, m Object) { m["manifests"] = []Object{} }), bundle.ErrOCI},
		"J1 calls itself an index": {changed(func(l *Layout, m Object) { m["mediaType"] = TypeIndex }), bundle.ErrOCI},
		"J1 schema 1":              {changed(func(l *Layout, m Object) { m["schemaVersion"] = 1 }), bundle.ErrOCI},
		"J1 10 000 descriptors": {func(l *Layout) []Object {
			d, many := good(l), []Object{}
			for range 10_000 {
				many = append(many, d)
			}
			return many
		}, bundle.ErrOCI},
		"J1 129 layers": {changed(func(l *Layout, m Object) {
			one, many := l.Blob(TypeTar, layer), []Object{}
			for range 129 {
				many = append(many, one)
			}
			m["layers"] = many
		}), bundle.ErrOCI},
		"J1 foreign layer": {changed(func(l *Layout, m Object) {
			d := l.Blob(TypeTar, layer)
			d["urls"] = []string{"https://elsewhere.example/layer"}
			m["layers"] = []Object{d}
		}), bundle.ErrOCI},
		"J1 layer of another kind": {changed(func(l *Layout, m Object) {
			m["layers"] = []Object{l.Blob("application/vnd.example+encrypted", layer)}
		}), bundle.ErrOCI},
		"J1 an artifact": {changed(func(l *Layout, m Object) { m["config"] = l.Blob("application/vnd.oci.empty.v1+json", []byte("{}")) }), bundle.ErrOCI},
		"J1 manifest of 1 MiB and more": {changed(func(l *Layout, m Object) {
			m["annotations"] = Object{"a": strings.Repeat("x", 1<<20)}
		}), bundle.ErrOCI},
		"J3 size lie of a manifest": {func(l *Layout) []Object {
			d := good(l)
			d["size"] = 7
			return []Object{d}
		}, bundle.ErrDigest},
		"J3 size of nothing":       {changed(func(l *Layout, m Object) { m["layers"].([]Object)[0]["size"] = 0 }), bundle.ErrOCI},
		"J3 size below zero":       {changed(func(l *Layout, m Object) { m["layers"].([]Object)[0]["size"] = -1 }), bundle.ErrOCI},
		"J3 size beyond the limit": {changed(func(l *Layout, m Object) { m["layers"].([]Object)[0]["size"] = int64(1) << 60 }), bundle.ErrOCI},
		"J3 md5": {changed(func(l *Layout, m Object) {
			m["layers"].([]Object)[0]["digest"] = "md5:d41d8cd98f00b204e9800998ecf8427e"
		}), bundle.ErrOCI},
		"J3 63 digits":                  {changed(func(l *Layout, m Object) { m["layers"].([]Object)[0]["digest"] = "sha256:" + strings.Repeat("a", 63) }), bundle.ErrOCI},
		"J3 a path for a digest":        {changed(func(l *Layout, m Object) { m["layers"].([]Object)[0]["digest"] = "sha256:../../../etc/passwd" }), bundle.ErrOCI},
		"J3 manifest that is missing":   {changed(func(l *Layout, m Object) { m["config"].(Object)["digest"] = "sha256:" + strings.Repeat("a", 64) }), bundle.ErrOCI},
		"config of another machine":     {config(Object{"os": "linux", "architecture": "s390x", "rootfs": Object{"type": "layers", "diff_ids": []string{Sum(layer).String()}}}), bundle.ErrArch},
		"config with too many layers":   {config(Config(Object{}, Sum(layer), Sum(layer))), bundle.ErrOCI},
		"config with a root of no kind": {config(Object{"os": "linux", "architecture": Arch, "rootfs": Object{"type": "zfs"}}), bundle.ErrOCI},
		"config with a NUL":             {config(Config(Object{"Entrypoint": []string{"a\x00b"}}, Sum(layer))), bundle.ErrOCI},
		"config with an odd variable":   {config(Config(Object{"Env": []string{"=x"}}, Sum(layer))), bundle.ErrOCI},
		"config with the root to keep":  {config(Config(Object{"Volumes": Object{"/": Object{}}}, Sum(layer))), bundle.ErrOCI},
	} {
		l := NewLayout(t)
		l.Index(c.make(l)...)
		rows = append(rows, Hostile{row, l.Path, c.want})
	}
	return rows
}
