package broker_test

import (
	"slices"
	"testing"
)

func TestAConditionLooksAtEachMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: []string{`FROM /messages/* WHERE alert = 'yes' INTO $upstream`}})
		c := r.connect(mod1)
		r.publish(c, events+"alert=yes", "one")
		r.publish(c, events+"alert=no", "two")
		r.publish(c, events, "three")
		r.publish(c, events+"alert=yes", "four")
		if got, want := r.waiting("upstream/mod1"), []string{"one", "four"}; !slices.Equal(got, want) {
			t.Errorf("got %q stored, want %q", got, want)
		}
	})
}
