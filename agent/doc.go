// Package agent builds every engine from a [Config], wires them together and runs them in one group.
//
// It is the only room that knows all the others. An engine never imports another engine: what one needs of its
// sibling (an identity, a route table, a place to publish) it declares as a func or a small interface, and this package
// hands it over in wire.go. Data walks one way, as ARCHITECTURE.md draws it: deployment down from the hub, telemetry up to it.
//
// [Load] reads the configuration file, [New] builds, [Agent.Run] owns every goroutine and returns when all have ended.
//
// The trap: ending the agent is not ending the modules. Run's context ends the agent; instances go on and are adopted by the
// next agent. Only the supervisor ends an instance, and only because the deployment or an operator says so.
package agent
