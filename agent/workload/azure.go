package workload

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// maxSecret bounds the body of a request of the workload API: what edge modules encrypt are documents of their own.
const maxSecret = 512 << 10

// azureRoutes adds the routes of Microsoft's workload API, all of which want an api-version.
func (k *socket) azureRoutes(mux *http.ServeMux) {
	route := func(pattern string, own bool, act http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if !versioned(w, r) {
				return
			}
			if own && r.PathValue("mod") != k.caller.ID.Module {
				k.refuse(w, r.PathValue("mod"))
				return
			}
			act(w, r)
		})
	}
	route("GET /modules", false, k.listModules)
	route("GET /modules/{$}", false, k.listModules)
	route("GET /trust-bundle", false, k.trustBundle)
	route("GET /manifest-trust-bundle", false, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"certificate": ""}) // manifests are not signed by certificates here
	})
	route("POST /modules/{mod}/genid/{gen}/sign", true, k.sign)
	route("POST /modules/{mod}/genid/{gen}/encrypt", true, k.encrypt)
	route("POST /modules/{mod}/genid/{gen}/decrypt", true, k.decrypt)
	route("POST /modules/{mod}/genid/{gen}/certificate/server", true, k.serverCertificate)
	route("POST /modules/{mod}/certificate/identity", true, k.identityCertificate)
}

// versioned checks the api-version, in the words of the identity service.
func versioned(w http.ResponseWriter, r *http.Request) bool {
	query := r.URL.Query()
	version := query.Get("api-version")
	switch {
	case !query.Has("api-version"):
		fail(w, http.StatusBadRequest, "api-version not specified")
	case !slices.Contains(iothub.WorkloadVersions(), version):
		fail(w, http.StatusBadRequest, "invalid api-version %.64q", version)
	default:
		return true
	}
	return false
}

// decode reads a JSON body into doc. A missing Content-Type is no reason to refuse it: Python sends none.
func decode(w http.ResponseWriter, body []byte, doc any) bool {
	if err := json.Unmarshal(body, doc); err != nil {
		fail(w, http.StatusBadRequest, "body is not the JSON that is wanted: %v", err)
		return false
	}
	return true
}

// unbase decodes one member of a body.
func unbase(w http.ResponseWriter, member string, text *string) ([]byte, bool) {
	if text == nil {
		fail(w, http.StatusBadRequest, "%s is missing", member)
		return nil, false
	}
	raw, err := base64.StdEncoding.DecodeString(*text)
	if err != nil {
		fail(w, http.StatusBadRequest, "%s is not base64", member)
		return nil, false
	}
	return raw, true
}

// sign answers with the MAC of the data under the module's key. The generation is not looked at, as in the original.
func (k *socket) sign(w http.ResponseWriter, r *http.Request) {
	k.withBody(w, r, maxSecret, func(body []byte) {
		var doc struct {
			Data *string `json:"data"`
		}
		if !decode(w, body, &doc) {
			return
		}
		data, ok := unbase(w, "data", doc.Data)
		if !ok {
			return
		}
		digest, err := k.cfg.Keys.Sign(k.caller.ID.Module, data)
		if err != nil {
			fail(w, http.StatusInternalServerError, "sign: %v", err)
			return
		}
		answer(w, http.StatusOK, map[string][]byte{"digest": digest})
	})
}

func (k *socket) encrypt(w http.ResponseWriter, r *http.Request) {
	k.crypt(w, r, "plaintext", "ciphertext", k.cfg.Keys.Seal, http.StatusInternalServerError)
}

func (k *socket) decrypt(w http.ResponseWriter, r *http.Request) {
	k.crypt(w, r, "ciphertext", "plaintext", k.cfg.Keys.Open, http.StatusBadRequest)
}

func (k *socket) crypt(w http.ResponseWriter, r *http.Request, from, to string, act func(module, generation string, vector, data []byte) ([]byte, error), status int) {
	module, generation := k.caller.ID.Module, r.PathValue("gen")
	if have, ok := k.cfg.Generation(module); !ok || have != generation {
		fail(w, http.StatusForbidden, "forbidden: generation %.64q is not this module's", generation)
		return
	}
	k.withBody(w, r, maxSecret, func(body []byte) {
		var doc map[string]*string
		if !decode(w, body, &doc) {
			return
		}
		data, ok := unbase(w, from, doc[from])
		if !ok {
			return
		}
		vector, ok := unbase(w, "initializationVector", doc["initializationVector"])
		if !ok {
			return
		}
		out, err := act(module, generation, vector, data)
		if err != nil {
			fail(w, status, "%v", err)
			return
		}
		answer(w, http.StatusOK, map[string][]byte{to: out})
	})
}

// certificate is the answer to a request for one. The key is PEM text although the original's schema says bytes.
type certificate struct {
	PrivateKey struct {
		Type  string `json:"type"`
		Bytes string `json:"bytes"`
	} `json:"privateKey"`
	Certificate string `json:"certificate"`
	Expiration  string `json:"expiration"` // RFC 3339
}

func (k *socket) serverCertificate(w http.ResponseWriter, r *http.Request) {
	var doc struct {
		CommonName string `json:"commonName"`
	}
	ok := false
	k.withBody(w, r, maxSecret, func(body []byte) { ok = decode(w, body, &doc) })
	if !ok {
		return
	}
	if doc.CommonName == "" || len(doc.CommonName) > 253 {
		fail(w, http.StatusBadRequest, "commonName: want 1 to 253 characters")
		return
	}
	unbounded(w) // a key takes seconds on a small board, and may have to wait for another
	answerCertificate(w)(k.cfg.Authority.IssueServer(r.Context(), doc.CommonName, k.caller.ID.Module))
}

func (k *socket) identityCertificate(w http.ResponseWriter, r *http.Request) {
	unbounded(w) // the body may be absent, and nothing in it is heeded
	answerCertificate(w)(k.cfg.Authority.IssueIdentity(r.Context(), k.caller.ID.Module))
}

func answerCertificate(w http.ResponseWriter) func(chain []byte, key iothub.Secret, expires time.Time, err error) {
	return func(chain []byte, key iothub.Secret, expires time.Time, err error) {
		if err != nil {
			fail(w, http.StatusInternalServerError, "issue certificate: %v", err)
			return
		}
		doc := certificate{Certificate: string(chain), Expiration: expires.UTC().Format("2006-01-02T15:04:05+00:00")}
		doc.PrivateKey.Type, doc.PrivateKey.Bytes = "key", key.Reveal()
		answer(w, http.StatusCreated, doc)
	}
}

func (k *socket) trustBundle(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]string{"certificate": string(k.cfg.Authority.TrustBundle())})
}

// Module is one line of the module list.
type Module struct {
	Name    string
	Type    string // docker, sandbox, native
	Status  string // running, stopped…
	Note    string // in words
	Started time.Time
	Exited  time.Time // zero = has not exited
	Code    int       // of the last exit
}

// listed is a Module as edgelet's management API prints it.
type listed struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Type   string `json:"type"`
	Config struct {
		Settings struct{}   `json:"settings"` // not for other modules' eyes
		Env      []struct{} `json:"env"`
	} `json:"config"`
	Status struct {
		Started string `json:"startTime,omitempty"`
		Exit    *exit  `json:"exitStatus,omitempty"`
		Runtime struct {
			Status string `json:"status"`
			Note   string `json:"description,omitempty"`
		} `json:"runtimeStatus"`
	} `json:"status"`
}

type exit struct {
	Time string `json:"exitTime"`
	Code string `json:"statusCode"`
}

func (k *socket) listModules(w http.ResponseWriter, _ *http.Request) {
	modules := []listed{}
	if k.cfg.Modules != nil {
		for _, m := range k.cfg.Modules() {
			l := listed{ID: "id", Name: m.Name, Type: m.Type}
			l.Config.Env = []struct{}{}
			l.Status.Runtime.Status, l.Status.Runtime.Note = m.Status, m.Note
			if !m.Started.IsZero() {
				l.Status.Started = m.Started.UTC().Format(time.RFC3339)
			}
			if !m.Exited.IsZero() {
				l.Status.Exit = &exit{Time: m.Exited.UTC().Format(time.RFC3339), Code: fmt.Sprint(m.Code)}
			}
			modules = append(modules, l)
		}
	}
	answer(w, http.StatusOK, map[string]any{"modules": modules})
}
