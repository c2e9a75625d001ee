package supervisor

// state is what a unit is doing.
type state uint8

const (
	stopped  state = iota // no instance, none wanted
	starting              // the sandbox is being made
	running               // the program runs
	stopping              // the program was asked to end, as it is not wanted
	ailing                // the program was asked to end, as another one is to replace it
	backoff               // it ended, and is started again later
	failed                // it ended, and its policy or its own word (exit 125) says: not again
)

var stateNames = [...]string{"stopped", "starting", "running", "stopping", "ailing", "backoff", "failed"}

func (s state) String() string { return stateNames[s] }

// event is what happens to a unit.
type event uint8

const (
	evStart  event = iota // wanted running, by the deployment or an operator
	evUp                  // the program runs
	evBroken              // the sandbox could not be made
	evStop                // wanted stopped
	evSick                // unhealthy, and its policy wants another one
	evExit                // the program ended: as asked, or to run again
	evDone                // the program ended, and is not to run again
	evDue                 // the time of backing off is over
)

var eventNames = [...]string{"start", "up", "broken", "stop", "sick", "exit", "done", "due"}

func (e event) String() string { return eventNames[e] }

// next is the whole behaviour of a unit; what is not in it cannot happen. testdata/states.golden is its picture.
var next = map[state]map[event]state{
	stopped:  {evStart: starting},
	starting: {evUp: running, evBroken: backoff},
	running:  {evExit: backoff, evDone: failed, evStop: stopping, evSick: ailing},
	stopping: {evExit: stopped, evStop: stopping},
	ailing:   {evExit: backoff, evDone: failed},
	backoff:  {evDue: starting, evStart: starting, evStop: stopped},
	failed:   {evStart: starting, evStop: stopped},
}
