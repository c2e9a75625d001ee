// Package supervisor makes running instances equal the deployment.
//
// The nouns: a [Supervisor] has one unit per module of the deployment; a unit owns at most one sandbox.Instance, its restart
// budget and its log. The states of a unit are the table in state.go.
//
// A deployment is the durable desired section of $edgeAgent. It is parsed, planned, and every image is fetched and verified
// before anything is stopped: a deployment that cannot be fetched changes nothing and is tried again. What a unit was made from
// (manifest, hash, image, id range) is written down before its first start, so that the next agent knows what it adopts.
//
// Goroutines: [Supervisor.Run] owns the loop that applies deployments, one goroutine per unit, and one per log.
//
// The trap: the end of Run is not the end of the modules. Instances go on without the agent, and Run of the next one adopts
// them. Only a deployment, an operator's verb or [Supervisor.StopAll] ends one.
//
// What a power cut leaves: before a unit's record is written, nothing (the module is made again from the deployment); after it,
// a module that is started at the next start; between stop and removal, a record whose module is no longer wanted and which the
// next plan removes. Instances themselves do not survive a reboot: their state is on tmpfs.
package supervisor
