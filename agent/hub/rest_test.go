package hub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/hub"
	"github.com/sandpiper-edge/sandpiper/agent/hub/hubtest"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// restAs makes REST requests with an identity's own token.
func restAs(t *testing.T, h *hubtest.Hub, cs iothub.ConnectionString) func(method, path, match string, body any) (int, []byte) {
	t.Helper()
	client := httpClient(t, h)
	return func(method, path, match string, body any) (int, []byte) {
		t.Helper()
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+h.Host+path+"?api-version=2021-04-12", bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		token, err := hubtest.Token(cs)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", token.Reveal())
		if match != "" {
			req.Header.Set("If-Match", match)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, answer
	}
}

func httpClient(t *testing.T, h *hubtest.Hub) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: h.TLS(), DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, h.HTTPS)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestTwinsKeepVersionsMetadataAndETags(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	id := register(t, h, "edge1", "").ID
	type view struct {
		ETag       string `json:"etag"`
		Version    int64  `json:"version"`
		Tags       map[string]any
		Properties struct{ Desired, Reported map[string]any }
	}
	get := func(raw json.RawMessage, err error) view {
		t.Helper()
		var v view
		if err == nil {
			err = json.Unmarshal(raw, &v)
		}
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	fresh := get(h.Owner.Twin(t.Context(), id))
	if fresh.Properties.Desired["$version"] != 1.0 || fresh.Properties.Reported["$version"] != 1.0 || fresh.ETag != "AAAAAAAAAAE=" {
		t.Errorf("new twin: got %+v", fresh)
	}
	desire(t, h, id, `{"a":{"b":1,"c":2},"d":3}`)
	changed := get(h.Owner.PatchTwin(t.Context(), id, json.RawMessage(`{"properties":{"desired":{"a":{"c":null},"$version":99}},"tags":{"building":"43"}}`)))
	if changed.Properties.Desired["$version"] != 3.0 || changed.ETag != "AAAAAAAAAAM=" || changed.Tags["building"] != "43" || changed.Version != 4 {
		t.Errorf("changed twin: got %+v", changed)
	}
	meta, _ := changed.Properties.Desired["$metadata"].(map[string]any)
	d, _ := meta["d"].(map[string]any)
	if meta["$lastUpdatedVersion"] != 3.0 || d["$lastUpdatedVersion"] != 2.0 {
		t.Errorf("metadata: got %v, want the root at 3 and d at 2", meta)
	}
	if a, _ := changed.Properties.Desired["a"].(map[string]any); len(a) != 1 || a["b"] != 1.0 {
		t.Errorf("a: got %v, want b alone", a)
	}
	for name, bad := range map[string]string{
		"a dot in a key": `{"properties":{"desired":{"a.b":1}}}`,
		"null in array":  `{"properties":{"desired":{"a":[null]}}}`,
		"not an object":  `{"properties":{"desired":[]}}`,
		"too large":      `{"properties":{"desired":{"a":"` + strings.Repeat("x", 5000) + `"}}}`,
		"not JSON":       `{`,
	} {
		if _, err := h.Owner.PatchTwin(t.Context(), id, json.RawMessage(bad)); name != "not JSON" && code(err)/1000 != 400 {
			t.Errorf("%s: got %v, want 400", name, err)
		}
	}
}

func TestConcurrentPatchesOfOneTwinAllCount(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	id := register(t, h, "edge1", "").ID
	const writers = 4
	done := make(chan error, writers)
	for w := range writers {
		go func() {
			body, _ := json.Marshal(map[string]any{"properties": map[string]any{"desired": map[string]any{"w" + string(rune('a'+w)): w}}})
			_, err := h.Owner.PatchTwin(t.Context(), id, body)
			done <- err
		}()
	}
	for range writers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	raw, err := h.Owner.Twin(t.Context(), id)
	if err != nil || !bytes.Contains(raw, []byte(`"$version":5`)) {
		t.Errorf("got %s, %v, want desired version 5", raw, err)
	}
}

func TestRegistryAnswersAsTheServiceDoes(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	ctx := t.Context()
	made, err := h.Owner.Create(ctx, hub.NewIdentity{ID: iothub.ID{Device: "edge1"}, Edge: true})
	if err != nil {
		t.Fatal(err)
	}
	if made.Status != "enabled" || made.Authentication.SymmetricKey.Primary == "" || made.GenerationID == "" || made.ETag == "" {
		t.Errorf("created: got %+v", made)
	}
	modules, err := h.Owner.Modules(ctx, "edge1")
	if err != nil || len(modules) != 2 {
		t.Errorf("modules of an edge device: got %+v, %v, want $edgeAgent and $edgeHub", modules, err)
	}
	_, err = h.Owner.Create(ctx, hub.NewIdentity{ID: iothub.ID{Device: "edge1"}})
	if code(err) != iothub.CodeDeviceExists {
		t.Errorf("created twice: got %v, want %d", err, iothub.CodeDeviceExists)
	}
	_, err = h.Owner.Identity(ctx, iothub.ID{Device: "nobody"})
	if code(err) != iothub.CodeDeviceNotFound {
		t.Errorf("unknown device: got %v, want %d", err, iothub.CodeDeviceNotFound)
	}
	if _, err := h.Owner.Create(ctx, hub.NewIdentity{ID: iothub.ID{Device: "edge1", Module: "filter"}}); err != nil {
		t.Error(err)
	}
	if err := h.Owner.Delete(ctx, iothub.ID{Device: "edge1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Owner.Twin(ctx, iothub.ID{Device: "edge1", Module: "filter"}); code(err)/1000 != 404 {
		t.Errorf("module of a deleted device: got %v, want 404", err)
	}
	again, err := h.Owner.Create(ctx, hub.NewIdentity{ID: iothub.ID{Device: "edge1"}})
	if err != nil || again.GenerationID == made.GenerationID {
		t.Errorf("created anew: got generation %s, %v, want another than %s", again.GenerationID, err, made.GenerationID)
	}
}

func TestApplyingAConfigurationMakesModulesAndReplacesSections(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	ctx := t.Context()
	register(t, h, "edge1", "")
	manifest := `{"modulesContent":{
		"$edgeAgent":{"properties.desired":{"schemaVersion":"1.1","runtime":{"type":"docker","settings":{}},"systemModules":{},
			"modules":{"filter":{"type":"native","status":"running","restartPolicy":"always","settings":{"image":"https://x/a.spb"}}}}},
		"$edgeHub":{"properties.desired":{"schemaVersion":"1.1","routes":{"up":"FROM /messages/* INTO $upstream"},"storeAndForwardConfiguration":{"timeToLiveSecs":7200}}},
		"filter":{"properties.desired":{"threshold":70}}}}`
	for range 2 { // applying it again is no error
		if err := h.Owner.Apply(ctx, "edge1", json.RawMessage(manifest)); err != nil {
			t.Fatal(err)
		}
	}
	modules, err := h.Owner.Modules(ctx, "edge1")
	if err != nil || len(modules) != 3 {
		t.Errorf("modules: got %+v, %v, want three", modules, err)
	}
	raw, err := h.Owner.Twin(ctx, iothub.ID{Device: "edge1", Module: "filter"})
	if err != nil || !bytes.Contains(raw, []byte(`"threshold":70`)) {
		t.Errorf("twin of the module: got %s, %v", raw, err)
	}
	for name, bad := range map[string]string{
		"no content":     `{}`,
		"a bad module":   `{"modulesContent":{"a b":{"properties.desired":{}}}}`,
		"a bad property": `{"modulesContent":{"a":{"properties.desired":{"x.y":1}}}}`,
	} {
		if err := h.Owner.Apply(ctx, "edge1", json.RawMessage(bad)); code(err)/1000 != 400 {
			t.Errorf("%s: got %v, want 400", name, err)
		}
	}
	if err := h.Owner.Apply(ctx, "nobody", json.RawMessage(manifest)); code(err) != iothub.CodeDeviceNotFound {
		t.Errorf("unknown device: got %v, want %d", err, iothub.CodeDeviceNotFound)
	}
}

func TestQueriesAnswerInPages(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	for _, device := range []string{"d3", "d1", "d2"} {
		if _, err := h.Owner.Create(t.Context(), hub.NewIdentity{ID: iothub.ID{Device: device}}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	token := ""
	for range 2 {
		twins, next, err := h.Owner.Query(t.Context(), "SELECT * FROM devices", 2, token)
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range twins {
			var twin struct{ DeviceID string }
			if err := json.Unmarshal(raw, &twin); err != nil {
				t.Fatal(err)
			}
			got = append(got, twin.DeviceID)
		}
		token = next
	}
	if strings.Join(got, " ") != "d1 d2 d3" || token != "" {
		t.Errorf("got %q and continuation %q, want d1 d2 d3 and no more", got, token)
	}
	if _, _, err := h.Owner.Query(t.Context(), "SELECT * FROM devices WHERE x", 2, ""); code(err)/1000 != 400 {
		t.Errorf("a condition: got %v, want 400", err)
	}
}

func TestBundlesAreServedInRangesAndNothingElseIs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "gauge.spb"), []byte("0123456789"), 0o644); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	h := hubtest.New(t, hubtest.Options{Bundles: dir})
	client := httpClient(t, h)
	tests := map[string]struct {
		path, ranges, body string
		status             int
	}{
		"whole":          {path: "gauge.spb", body: "0123456789", status: 200},
		"a part":         {path: "gauge.spb", ranges: "bytes=4-6", body: "456", status: 206},
		"the listing":    {path: "", status: 404},
		"a directory":    {path: "sub", status: 404},
		"what is not":    {path: "nothing", status: 404},
		"a link outside": {path: "link", status: 404},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+h.Host+"/bundles/"+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.ranges != "" {
				req.Header.Set("Range", tt.ranges)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			refused := tt.status == 404 && resp.StatusCode >= 400 && !bytes.Contains(body, []byte("secret")) && !bytes.Contains(body, []byte("gauge"))
			if err != nil || !refused && (resp.StatusCode != tt.status || string(body) != tt.body) {
				t.Errorf("got %d %q, %v, want %d %q", resp.StatusCode, body, err, tt.status, tt.body)
			}
		})
	}
}
