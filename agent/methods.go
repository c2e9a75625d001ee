package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/supervisor"
)

func asError(err error) (*iothub.Error, bool) { return errors.AsType[*iothub.Error](err) }

// ownMethods answers the direct methods of $edgeAgent: ping, RestartModule and GetModuleLogs. Names are case-insensitive, as IoT
// Edge has them.
func (a *Agent) ownMethods(ctx context.Context, req iothub.MethodRequest) iothub.MethodResult {
	var payload any
	var err error
	switch strings.ToLower(req.Name) {
	case "ping":
	case "restartmodule":
		err = a.restartModule(ctx, req.Payload)
	case "getmodulelogs":
		payload, err = a.moduleLogs(ctx, req.Payload)
	default:
		err = badRequest{fmt.Errorf("unknown method %q; known: ping, RestartModule, GetModuleLogs", req.Name)}
	}
	status := 200
	if err != nil {
		status = 500
		var bad badRequest
		if errors.As(err, &bad) {
			status = 400
		}
		payload = map[string]string{"message": err.Error()}
	}
	raw, err := json.Marshal(payload)
	if err != nil {
		return iothub.MethodResult{Status: 500, Payload: json.RawMessage("null")}
	}
	return iothub.MethodResult{Status: status, Payload: raw}
}

// badRequest is answered with 400.
type badRequest struct{ error }

func schemaOne(version string) error {
	if major, _, _ := strings.Cut(version, "."); major != "1" {
		return badRequest{fmt.Errorf("schemaVersion %q: want 1.x", version)}
	}
	return nil
}

func (a *Agent) restartModule(ctx context.Context, payload []byte) error {
	var want struct {
		SchemaVersion string `json:"schemaVersion"`
		ID            string `json:"id"`
	}
	if err := json.Unmarshal(payload, &want); err != nil {
		return badRequest{err}
	}
	if err := schemaOne(want.SchemaVersion); err != nil {
		return err
	}
	return a.verb(ctx, "restart", want.ID)
}

// maxLogAnswer is the largest answer of GetModuleLogs, in bytes.
const maxLogAnswer = 127000

// moduleLogs answers GetModuleLogs with text; gzip and JSON lines are refused by name.
func (a *Agent) moduleLogs(ctx context.Context, payload []byte) (any, error) {
	type item struct {
		ID     string `json:"id"`
		Filter struct {
			Tail *int `json:"tail"`
		} `json:"filter"`
	}
	var want struct {
		SchemaVersion string          `json:"schemaVersion"`
		Items         json.RawMessage `json:"items"`
		Encoding      string          `json:"encoding"`
		ContentType   string          `json:"contentType"`
	}
	if err := json.Unmarshal(payload, &want); err != nil {
		return nil, badRequest{err}
	}
	if err := schemaOne(want.SchemaVersion); err != nil {
		return nil, err
	}
	if want.Encoding != "" && want.Encoding != "none" || want.ContentType != "" && want.ContentType != "text" {
		return nil, badRequest{errors.New("encoding and contentType: want none and text")}
	}
	var items []item
	if json.Unmarshal(want.Items, &items) != nil {
		items = make([]item, 1)
		if err := json.Unmarshal(want.Items, &items[0]); err != nil {
			return nil, badRequest{fmt.Errorf("items: %w", err)}
		}
	}
	type answer struct {
		ID      string `json:"id"`
		Payload string `json:"payload"`
	}
	answers := []answer{}
	size := 0
	for _, it := range items {
		pattern, err := regexp.Compile("^(?:" + it.ID + ")$")
		if err != nil {
			return nil, badRequest{fmt.Errorf("items.id: %w", err)}
		}
		tail := -1
		if it.Filter.Tail != nil {
			tail = *it.Filter.Tail
		}
		for _, m := range a.supervisor.Modules() {
			if !pattern.MatchString(m.Wanted.Name) {
				continue
			}
			var out bytes.Buffer
			if err := a.supervisor.Logs(ctx, m.Wanted.Name, supervisor.LogQuery{Tail: tail}, &out); err != nil {
				return nil, err
			}
			if size += out.Len(); size > maxLogAnswer {
				return nil, badRequest{fmt.Errorf("the logs are larger than %d bytes; ask for a tail", maxLogAnswer)}
			}
			answers = append(answers, answer{m.Wanted.Name, out.String()})
		}
	}
	return answers, nil
}
