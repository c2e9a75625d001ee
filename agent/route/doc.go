// Package route is the routing language of edge deployments and the table that applies it: one message in, its
// sinks out.
//
// The nouns: [Route] is one parsed statement, "FROM source [WHERE condition] INTO sink"; [Rule] is a route with its
// name, priority and time to live, as a deployment holds it; [Router] is the table built from all rules; [Hop] is one
// answer of it.
//
// Conditions are those of edgeHub, with these differences, each on the side of the documented language: a member that
// a JSON body lacks is undefined (edgeHub: null), is_null and is_defined say what their names say, values of
// different kinds have no order, AND and OR know that false AND undefined is false, and a condition that is text or a
// number, and so can never be true, is refused.
//
// The package is pure and a Router never changes: whoever gets a new deployment builds a new Router and swaps the
// pointer.
//
// The trap: a source is a prefix of whole path segments, not a pattern. "/messages/modules/a/*" is also every output
// of a, and "/*" includes twin changes.
package route
