package twin

import (
	"maps"
	"reflect"
)

// replaced is an object inside a composed patch that takes the place of whatever was there. It holds no nulls: everything
// in it is known. It never leaves the package, see [resolve].
type replaced map[string]any

// Merge applies an RFC 7396 merge patch: objects merge member by member, null deletes, everything else (arrays too) replaces.
// The result shares what did not change with target; neither argument is altered.
func Merge(target, patch map[string]any) map[string]any {
	out := make(map[string]any, len(target)+len(patch))
	maps.Copy(out, target)
	for key, value := range patch {
		switch v := value.(type) {
		case nil:
			delete(out, key)
		case map[string]any:
			old, _ := out[key].(map[string]any)
			out[key] = Merge(old, v)
		case replaced:
			out[key] = Merge(nil, v)
		default:
			out[key] = v
		}
	}
	return out
}

// Compose gives one patch for first followed by second. Nulls survive. Merging it equals merging both in turn, with one exception
// that no merge patch can express: where first deletes or replaces an object and second builds an object at the same place,
// members that the target had there remain.
func Compose(first, second map[string]any) map[string]any {
	return plain(compose(first, second))
}

// compose is Compose without its exception: such objects are marked [replaced].
func compose(first, second map[string]any) map[string]any {
	out := make(map[string]any, len(first)+len(second))
	maps.Copy(out, first)
	for key, value := range second {
		old, had := first[key]
		next, object := value.(map[string]any)
		if !object || !had {
			out[key] = value
			continue
		}
		switch o := old.(type) {
		case map[string]any:
			out[key] = compose(o, next)
		case replaced:
			out[key] = replaced(Merge(o, next))
		default:
			out[key] = replaced(Merge(nil, next))
		}
	}
	return out
}

// plain turns marked objects into ordinary ones.
func plain(patch map[string]any) map[string]any {
	out := make(map[string]any, len(patch))
	for key, value := range patch {
		switch v := value.(type) {
		case map[string]any:
			out[key] = plain(v)
		case replaced:
			out[key] = map[string]any(v)
		default:
			out[key] = v
		}
	}
	return out
}

// resolve writes patch as a merge patch that is exact on a section that holds no more than held: an object that replaces names
// with null each member that held has in its place.
func resolve(patch, held map[string]any) map[string]any {
	out := make(map[string]any, len(patch))
	for key, value := range patch {
		under, _ := held[key].(map[string]any)
		switch v := value.(type) {
		case map[string]any:
			out[key] = resolve(v, under)
		case replaced:
			out[key] = cover(v, under)
		default:
			out[key] = v
		}
	}
	return out
}

// cover is the patch that turns any object with no more members than held into doc.
func cover(doc, held map[string]any) map[string]any {
	out := make(map[string]any, len(doc)+len(held))
	for key := range held {
		if _, kept := doc[key]; !kept {
			out[key] = nil
		}
	}
	for key, value := range doc {
		if object, ok := value.(map[string]any); ok {
			under, _ := held[key].(map[string]any)
			value = cover(object, under)
		}
		out[key] = value
	}
	return out
}

// overlay adds what patch sets to doc and deletes nothing: what a section may hold when it is not known whether patch arrived.
func overlay(doc, patch map[string]any) map[string]any {
	out := make(map[string]any, len(doc)+len(patch))
	maps.Copy(out, doc)
	for key, value := range patch {
		if r, ok := value.(replaced); ok {
			value = map[string]any(r)
		}
		object, ok := value.(map[string]any)
		old, had := out[key].(map[string]any)
		switch {
		case value == nil, had && !ok:
		case ok:
			out[key] = overlay(old, object)
		default:
			out[key] = value
		}
	}
	return out
}

// deletions keeps only the nulls of patch.
func deletions(patch map[string]any) map[string]any {
	out := map[string]any{}
	for key, value := range patch {
		if value == nil {
			out[key] = nil
			continue
		}
		if object, ok := value.(map[string]any); ok {
			if inner := deletions(object); len(inner) > 0 {
				out[key] = inner
			}
		}
	}
	return out
}

// additions is patch without those nulls that delete nothing from held. An object in patch stays even when it ends up empty.
func additions(patch, held map[string]any) map[string]any {
	out := make(map[string]any, len(patch))
	for key, value := range patch {
		under, exists := held[key]
		object, ok := value.(map[string]any)
		switch {
		case value == nil && !exists:
		case ok:
			inner, _ := under.(map[string]any)
			out[key] = additions(object, inner)
		default:
			out[key] = value
		}
	}
	return out
}

// Diff is the smallest merge patch that turns from into to: only changed members, null for those that are gone. Merge(from,
// Diff(from, to)) equals to for every to without null members.
func Diff(from, to map[string]any) map[string]any {
	out := map[string]any{}
	for key := range from {
		if _, kept := to[key]; !kept {
			out[key] = nil
		}
	}
	for key, value := range to {
		old, had := from[key]
		a, wasObject := old.(map[string]any)
		b, isObject := value.(map[string]any)
		switch {
		case wasObject && isObject:
			if inner := Diff(a, b); len(inner) > 0 {
				out[key] = inner
			}
		case !had || !reflect.DeepEqual(old, value):
			out[key] = value
		}
	}
	return out
}
