package workload

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

const version = "?api-version=2018-06-28"

func TestWorkloadAPI(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	data := "hub.example.net%2Fdevices%2Fedge1%2Fmodules%2Ffilter\n1795551440"
	tests := map[string]struct {
		method, path, body string
		status             int
		want               string // JSON
	}{
		"sign": {
			"POST", "/modules/filter/genid/637/sign" + version, `{"keyId":"primary","algo":"HMACSHA256","data":"` + b64(data) + `"}`,
			200, `{"digest":"` + b64(string(mac("filter", []byte(data)))) + `"}`,
		},
		"sign does not look at the generation": {
			"POST", "/modules/filter/genid/other/sign" + version, `{"data":""}`, 200, `{"digest":"` + b64(string(mac("filter", nil))) + `"}`,
		},
		"sign for another module": {
			"POST", "/modules/other/genid/637/sign" + version, `{"data":""}`, 403, `{"message":"forbidden: this socket belongs to module filter"}`,
		},
		"sign for the agent": {
			"POST", "/modules/%24edgeAgent/genid/637/sign" + version, `{"data":""}`, 403, `{"message":"forbidden: this socket belongs to module filter"}`,
		},
		"sign what is not base64": {
			"POST", "/modules/filter/genid/637/sign" + version, `{"data":"%"}`, 400, `{"message":"data is not base64"}`,
		},
		"sign nothing": {
			"POST", "/modules/filter/genid/637/sign" + version, `{}`, 400, `{"message":"data is missing"}`,
		},
		"sign with an empty body": {
			"POST", "/modules/filter/genid/637/sign" + version, ``, 400, `{"message":"body is not the JSON that is wanted: unexpected end of JSON input"}`,
		},
		"no api-version": {
			"POST", "/modules/filter/genid/637/sign", `{"data":""}`, 400, `{"message":"api-version not specified"}`,
		},
		"an api-version of another time": {
			"GET", "/trust-bundle?api-version=1999-01-01", ``, 400, `{"message":"invalid api-version \"1999-01-01\""}`,
		},
		"encrypt": {
			"POST", "/modules/filter/genid/637/encrypt" + version, `{"plaintext":"` + b64("p") + `","initializationVector":"` + b64("v") + `"}`,
			200, `{"ciphertext":"` + b64("filter|637|v|p") + `"}`,
		},
		"decrypt": {
			"POST", "/modules/filter/genid/637/decrypt" + version, `{"ciphertext":"` + b64("filter|637|v|p") + `","initializationVector":"` + b64("v") + `"}`,
			200, `{"plaintext":"` + b64("p") + `"}`,
		},
		"decrypt what another vector encrypted": {
			"POST", "/modules/filter/genid/637/decrypt" + version, `{"ciphertext":"` + b64("filter|637|v|p") + `","initializationVector":""}`,
			400, `{"message":"does not open"}`,
		},
		"encrypt for another generation": {
			"POST", "/modules/filter/genid/638/encrypt" + version, `{"plaintext":"","initializationVector":""}`,
			403, `{"message":"forbidden: generation \"638\" is not this module's"}`,
		},
		"encrypt without a vector": {
			"POST", "/modules/filter/genid/637/encrypt" + version, `{"plaintext":""}`, 400, `{"message":"initializationVector is missing"}`,
		},
		"server certificate": {
			"POST", "/modules/filter/genid/637/certificate/server" + version, `{"commonName":"gw01","expiration":"2030-01-01T00:00:00Z"}`,
			201, `{"privateKey":{"type":"key","bytes":"key"},"certificate":"chain of gw01 filter","expiration":"9999-12-31T23:59:59+00:00"}`,
		},
		"server certificate for nobody": {
			"POST", "/modules/filter/genid/637/certificate/server" + version, `{}`, 400, `{"message":"commonName: want 1 to 253 characters"}`,
		},
		"identity certificate, no body": {
			"POST", "/modules/filter/certificate/identity" + version, ``,
			201, `{"privateKey":{"type":"key","bytes":"key"},"certificate":"chain of filter","expiration":"9999-12-31T23:59:59+00:00"}`,
		},
		"identity certificate of another module": {
			"POST", "/modules/other/certificate/identity" + version, ``, 403, `{"message":"forbidden: this socket belongs to module filter"}`,
		},
		"trust bundle": {"GET", "/trust-bundle" + version, ``, 200, `{"certificate":"-----BEGIN CERTIFICATE-----"}`},
		"manifest trust bundle": {
			"GET", "/manifest-trust-bundle" + version, ``, 200, `{"certificate":""}`,
		},
		"module list": {
			"GET", "/modules" + version, ``, 200, `{"modules":[
				{"id":"id","name":"filter","type":"docker","config":{"settings":{},"env":[]},"status":{"startTime":"2023-11-14T22:13:20Z","runtimeStatus":{"status":"running"}}},
				{"id":"id","name":"done","type":"native","config":{"settings":{},"env":[]},"status":{"exitStatus":{"exitTime":"2023-11-14T22:15:00Z","statusCode":"3"},"runtimeStatus":{"status":"stopped","description":"finished"}}}]}`,
		},
		"an unknown path":   {"GET", "/nothing" + version, ``, 404, `{"message":"nothing here answers GET \"/nothing\""}`},
		"an unknown method": {"DELETE", "/trust-bundle" + version, ``, 404, `{"message":"nothing here answers DELETE \"/trust-bundle\""}`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, kind, body := b.ask(t, tc.method, tc.path, tc.body)
			if status != tc.status {
				t.Errorf("status: got %d, want %d", status, tc.status)
			}
			if !strings.Contains(kind, "application/json") {
				t.Errorf("content type: got %q, which Node does not read as JSON", kind)
			}
			sameJSON(t, body, tc.want)
		})
	}
}

func TestEveryAPIVersionIsServed(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	for _, v := range iothub.WorkloadVersions() {
		if status, _, body := b.ask(t, "GET", "/modules/?api-version="+v, ""); status != 200 {
			t.Errorf("%s: got %d %s, want 200", v, status, body)
		}
	}
}

// Rows of the quirk list: what each SDK's HTTP client really writes.
func TestSDKsAreUnderstood(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	body := `{"keyId":"primary","algo":"HMACSHA256","data":"YQ=="}`
	length := fmt.Sprint(len(body))
	tests := map[string]string{
		"Python: socket path as Host, no Content-Type (quirk: no Content-Type on sign request)": "POST /modules/filter/genid/637/sign?api-version=2022-08-03 HTTP/1.1\r\nHost: %2Fvar%2Frun%2Fiotedge%2Fworkload.sock\r\nAccept-Encoding: identity\r\nContent-Length: " + length + "\r\nUser-Agent: azure-iot-device\r\nAuthorization: \r\n\r\n" + body,
		"Node: Host localhost": "POST /modules/filter/genid/637/sign?api-version=2018-06-28 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: " + length + "\r\nConnection: close\r\n\r\n" + body,
		"C: charset stated":    "POST /modules/filter/genid/637/sign?api-version=2018-06-28 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: " + length + "\r\n\r\n" + body,
		"no Host at all, 1.0":  "POST /modules/filter/genid/637/sign?api-version=2018-06-28 HTTP/1.0\r\nContent-Length: " + length + "\r\n\r\n" + body,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("unix", b.path)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != 200 || resp.ContentLength < 0 {
				t.Errorf("got %d, Content-Length %d, want 200 and a length: C reads no chunks", resp.StatusCode, resp.ContentLength)
			}
		})
	}
}

func TestAForeignModuleIsLoggedOnceWithBothIdentities(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	for range 3 {
		b.ask(t, "POST", "/modules/other/genid/1/sign"+version, `{"data":""}`)
	}
	log := b.logs.text()
	if strings.Count(log, "\n") != 1 || !strings.Contains(log, "identity=edge1/filter") || !strings.Contains(log, "claimed=other") {
		t.Errorf("log: got %q, want one line with both identities", log)
	}
}

func TestAProcessOfAnotherUserGetsNoAnswer(t *testing.T) {
	t.Parallel()
	uid := uint32(os.Getuid())
	tests := map[string]func(*Caller){
		"range above":    func(c *Caller) { c.UIDBase, c.UIDCount = uid+1, 65536 },
		"empty range":    func(c *Caller) { c.UIDCount = 0 },
		"uid before it":  func(c *Caller) { c.UIDBase, c.UIDCount = 1<<31, 1<<31 },
		"wraps not over": func(c *Caller) { c.UIDBase, c.UIDCount = 1<<32-2, 2 },
	}
	for name, edit := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := serve(t, edit)
			resp, err := b.client.Get("http://module/trust-bundle" + version)
			if err == nil {
				resp.Body.Close()
				t.Fatalf("got %s, want a closed connection", resp.Status)
			}
			if log := b.logs.text(); !strings.Contains(log, "identity=edge1/filter") || !strings.Contains(log, fmt.Sprintf("uid %d", uid)) {
				t.Errorf("log: got %q, want the module and the uid", log)
			}
		})
	}
}

func TestBodiesAreBounded(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	long := strings.Repeat("x", maxSecret+1)
	if status, _, _ := b.ask(t, "POST", "/modules/filter/genid/637/sign"+version, long); status != 413 {
		t.Errorf("stated length: got %d, want 413", status)
	}
	req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://module/v1/messages/outputs/o", struct{ *strings.Reader }{strings.NewReader(long)})
	req.ContentLength = -1
	resp, err := b.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 413 {
		t.Errorf("chunked: got %d, want 413", resp.StatusCode)
	}
}
