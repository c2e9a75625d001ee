// Package ocitest makes OCI images for tests and serves them: [Content] is images in the making, [Registry] a registry on loopback that
// can be told to misbehave.
//
// The trap: a registry's certificate is its own; its Client trusts it, nobody else does.
package ocitest
