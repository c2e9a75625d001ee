// Package iothub is the wire language of IoT Hub devices, as values: what topics, property bags, user names,
// tokens, error bodies and method requests say, and how to say them back.
//
// The nouns a reader needs: [ID] (who), [Bag] (properties of a message), [Publish] (what a client may publish),
// [Delivery] (what a server may deliver), [Filter] (what a client may subscribe to), [UserName] and [Token]
// (how a client introduces itself), [Key] and [Secret] (what must not be printed), [Error] (how a server says no).
// Both ends use the same types, so the broker, the link to the hub and our own hub cannot disagree.
//
// The package is pure: no goroutine, no clock, no I/O, no state. Every parser takes text from a stranger: it
// checks a documented length before it allocates, never panics, and whatever it accepts prints back to text that
// parses to the same value. Printing normalises: percent-escapes get upper-case hex and cover everything but
// unreserved characters, a trailing slash and a leading '?' around a bag are dropped, a bag member without '='
// gets one, numbers lose leading zeros.
//
// The trap: ids stand in topics, client ids and user names as they are, never percent-encoded, whereas bag keys
// and values always are; and '+' in a bag is a plus, not a space.
package iothub
