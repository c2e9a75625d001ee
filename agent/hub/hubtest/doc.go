// Package hubtest runs a hub in this process for tests and demonstrations: real state in a directory, real TLS on loopback.
//
// The nouns: a [Hub] is the running hub with an owner's client; its link can be cut and restored. [New] is for tests, [Start] for
// programs.
//
// The trap: a cut closes the doors and every connection through them, the owner's included; ask the client nothing meanwhile.
package hubtest
