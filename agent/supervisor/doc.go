// Package supervisor makes running instances equal the deployment.
//
// The nouns: a [Supervisor] has one unit per module of the deployment; a unit owns at most one sandbox.Instance, its restart
// budget and its log. The states of a unit are the table in state.go. The *applied* deployment is the one that is carried out: the
// twin may hold another, which was refused, or whose images are not here yet.
//
// A deployment is parsed, every image is fetched and verified, and the whole is written down as applied before anything is stopped. One
// that fails before that point changes nothing; what may be had later is tried again. From then on each module is for itself: one that
// does not start, or fails in its probation, backs off and is reported in lastDesiredStatus. Its companions are not taken back to
// the deployment before; that belongs to updates as a group.
//
// Goroutines: [Supervisor.Run] owns the loop that applies deployments, one goroutine for the report, and for each module its unit, one that
// waits for the instance's end and one for each stream of its output.
//
// The trap: the end of Run is not the end of the modules. Instances go on without the agent, and Run of the next one adopts
// them. Only a deployment, an operator's verb or [Supervisor.StopAll] ends one, and what was decided is durable before it is done.
//
// # On disk
//
//	supervisor/applied         document: $version, desired section and image of each module of the applied deployment
//	supervisor/module/{name}   document: what was installed, what an operator decided, how the program ended last
//	supervisor/ids/{name}      document: number of the module's range of user ids, for good
//	{LogDir}/{name}/N.seg      output, in pieces (see piece.go); the highest N is written, a few older ones are kept
//
// What a power cut leaves: before applied is written, the deployment before it; after it, the new one with any of its steps done, and the
// next start does the rest without the network. A record whose module is not wanted is the reminder to go on removing it.
// Instances do not survive a reboot: their state is on tmpfs. Output is moved from a module's pipe into its log by one call of the kernel (splice), so
// that an agent killed at any moment neither loses a line nor writes one twice. What a module prints beyond its rate, or while the log cannot be
// written, is dropped in whole lines, and a note in their place says how many.
package supervisor
