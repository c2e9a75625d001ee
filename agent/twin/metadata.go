package twin

import (
	"encoding/json"
	"maps"
	"strconv"
	"time"
)

// stampLayout is how hubs print times in $metadata: UTC with seven fractional digits.
const stampLayout = "2006-01-02T15:04:05.0000000Z"

// Touch updates the $metadata tree of a section for one accepted patch: every node on the way to a changed member, and
// the root, gets $lastUpdated and, with version > 0 (desired sections), $lastUpdatedVersion; deleted members lose their node.
// meta is not altered.
func Touch(meta map[string]any, patch map[string]any, at time.Time, version int64) map[string]any {
	out := make(map[string]any, len(meta)+len(patch)+2)
	maps.Copy(out, meta)
	out["$lastUpdated"] = at.UTC().Format(stampLayout)
	if version > 0 {
		out["$lastUpdatedVersion"] = json.Number(strconv.FormatInt(version, 10))
	}
	for key, value := range patch {
		switch v := value.(type) {
		case nil:
			delete(out, key)
		case map[string]any:
			old, _ := out[key].(map[string]any)
			out[key] = Touch(old, v, at, version)
		default:
			out[key] = Touch(nil, nil, at, version)
		}
	}
	return out
}
