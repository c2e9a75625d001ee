// Package deployment turns what an operator wants into typed values, and into steps.
//
// The nouns. A [Manifest] is the file or request that sets the desired sections of several modules at once. [Agent] is the desired section of
// $edgeAgent: which modules run and how; [Hub] is that of $edgeHub: the routes. A [Module] is one module as wanted; its [Settings] say what
// runs and within which bounds, whichever of the three types it has. A [Plan] is the list of steps from what runs to what is wanted. The
// reports ([AgentReport], [HubReport]) are what the agent answers in its reported sections.
//
// Parsing is complete: a value of these types needs no further check, and everything that cannot be honoured is refused here by name,
// before anything is stopped. Each error is an [*Error] with the exact path of the member. What is accepted without having an effect
// is listed in Notes, for the log.
//
// Everything is pure; no goroutine is owned here.
//
// The trap: [Module.Hash] decides whether a module is restarted. A field that is added to Settings must be left out of the hash while it is
// zero, or every module of every device restarts when its agent is updated; testdata/hash.golden holds that still.
package deployment
