package iothub

import "strings"

// Feature is what a subscription switches on; the zero value is none.
type Feature uint8

// The features there are, one filter each, inputs two.
const (
	FeatureInputs        Feature = iota + 1 // messages for a module's inputs
	FeatureCloudToDevice                    // messages for a device
	FeatureMethods                          // direct methods
	FeatureTwinResults                      // answers to twin requests
	FeatureDesired                          // changes of desired properties
)

// String names the feature for logs and listings.
func (f Feature) String() string {
	switch f {
	case FeatureInputs:
		return "inputs"
	case FeatureCloudToDevice:
		return "cloud-to-device"
	case FeatureMethods:
		return "methods"
	case FeatureTwinResults:
		return "twin-results"
	case FeatureDesired:
		return "desired"
	}
	return "none"
}

// Filter is a topic filter of a subscription.
type Filter struct {
	Feature Feature
	ID      ID   // FeatureInputs, FeatureCloudToDevice: whom the filter names. A server compares it with the connection
	Wide    bool // FeatureInputs: in the form devices/{device}/modules/{module}/#, as the C and C# SDKs write it
}

// ParseFilter reads one of the six filters that exist, case-sensitively. Any other wraps [ErrUnknownTopic]: a server
// grants it, delivers nothing and logs it, because no SDK looks at the code that would say no.
func ParseFilter(s string) (Filter, error) {
	if err := checkTopic("filter", s); err != nil {
		return Filter{}, err
	}
	switch s {
	case topicMethodCall + "#":
		return Filter{Feature: FeatureMethods}, nil
	case topicTwinResult + "#":
		return Filter{Feature: FeatureTwinResults}, nil
	case topicDesired + "#":
		return Filter{Feature: FeatureDesired}, nil
	}
	device, module, rest, ok := cutAddress(s)
	if !ok {
		return Filter{}, unknown("filter", s)
	}
	f := Filter{Feature: FeatureInputs}
	switch {
	case module == "" && rest == c2dPart+"/#":
		f.Feature = FeatureCloudToDevice
	case module != "" && rest == inputsPart+"#":
	case module != "" && rest == "#":
		f.Wide = true
	default:
		return Filter{}, unknown("filter", s)
	}
	id, err := NewID(device, module)
	if err != nil {
		return Filter{}, syntax("filter", s, err.Error())
	}
	if strings.ContainsAny(device+module, "+#") {
		return Filter{}, unknown("filter", s) // legal in ids, but in a filter these are wildcards
	}
	f.ID = id
	return f, nil
}

// String prints the filter; [ParseFilter] reads it back. A filter of no feature prints "".
func (f Filter) String() string {
	switch f.Feature {
	case FeatureInputs:
		if f.Wide {
			return string(append(appendAddress(nil, f.ID), '#'))
		}
		return string(append(append(appendAddress(nil, f.ID), inputsPart...), '#'))
	case FeatureCloudToDevice:
		return string(append(append(appendAddress(nil, f.ID), c2dPart...), "/#"...))
	case FeatureMethods:
		return topicMethodCall + "#"
	case FeatureTwinResults:
		return topicTwinResult + "#"
	case FeatureDesired:
		return topicDesired + "#"
	}
	return ""
}
