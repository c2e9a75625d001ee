package bundle_test

import (
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// The wanted digests were printed by `fsverity digest` 1.5 for files whose byte i is (i*7 + i>>8) mod 256, the pattern
// repeating every 65536 bytes.
func TestVerityDigestIsTheKernels(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		size int
		want string
	}{
		"one byte":                      {1, "b803429503d95915829b29fdbc8bbad142f3abfd11b1cadf5526582e685c0551"},
		"a byte less than a block":      {4095, "036811a3f3360df7c779a29d40d2561d03d020f5219b2c42aa93d9d545e05e26"},
		"one block":                     {4096, "dba6800c0bddc2369f4f0ab54798f65f5a8c1f49adc4a4792a831ff4b093e2d7"},
		"a byte more than a block":      {4097, "fefe00b4a113721b31dbc100ba46ff68ba3c9ca6dc62c6a3c1e71db190c68f9f"},
		"two blocks":                    {8192, "3e6fa1e44aa1330374f857806b32be007c99a9fb00ed24b7639fa5dd7878c691"},
		"a full hash block":             {524288, "eaae8cbd17127f6514707a04477de56880466f212f12d13c4397e929b54d8f5a"},
		"a byte more than a hash block": {524289, "0e3b4b2d25eb9005be08661772bd35783c1fba25ba74e6a63693f072dad036ce"},
		"an odd megabyte":               {1000000, "3f6758d4cc49ae9d327cfbf39bc81b12f9c0c45d2355f452b0b7bbd8bf4c4fb9"},
		"two full levels":               {67108864, "5dda10f89034d21946c5648a603d939b9e3b51ee1210682ecd6edae9c7bd858a"},
		"a byte more than two levels":   {67108865, "42717f9d071feda440b7618c3a65970588077e84bbc863d8193db0bd2e77b6d2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pattern := make([]byte, 65536)
			for i := range pattern {
				pattern[i] = byte(i*7 + i>>8)
			}
			var v bundle.Verity
			for left := tc.size; left > 0; left -= min(left, len(pattern)) {
				_, _ = v.Write(pattern[:min(left, len(pattern))])
			}
			if got := v.Digest().Hex(); got != tc.want {
				t.Errorf("digest of %d bytes: got %s, want %s", tc.size, got, tc.want)
			}
		})
	}
}
