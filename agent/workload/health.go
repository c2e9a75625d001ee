package workload

import (
	"encoding/json"
	"net/http"
)

// maxHealth bounds a health report.
const maxHealth = 4096

// Health is what a module says of itself.
type Health struct {
	Healthy bool   `json:"healthy"`
	Note    string `json:"note,omitempty"` // for the operator
}

func (k *socket) postHealth(w http.ResponseWriter, r *http.Request) {
	k.withDocument(w, r, maxHealth, func(body []byte) {
		report := Health{Healthy: true}
		if len(body) > 0 {
			if err := json.Unmarshal(body, &report); err != nil {
				fail(w, http.StatusBadRequest, `body is not {"healthy":bool,"note":text}: %v`, err)
				return
			}
		}
		if k.cfg.Health != nil {
			k.cfg.Health(k.caller.ID, report)
		}
		w.WriteHeader(http.StatusNoContent)
	})
}
