package supervisor

import (
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// budget spaces the restarts of one module. It is a rate and not a lifetime: a module that ran well for healthyAfter starts
// with a clean sheet, and so does every module when the device starts, an operator starts it or its deployment changes. There is no
// number of restarts after which a module stays down for ever (field report Azure/iotedge#1731): one that fails at once is started
// 17 times in its first hour and 12 times in each later one.
type budget struct {
	in    int       // restarts since the sheet was clean
	up    time.Time // when the program last came up
	total int       // starts that followed an end or a failed start, for reports; a clean sheet too after healthyAfter
}

const (
	firstRestart = time.Second      // a single crash costs no more
	baseBackoff  = 10 * time.Second // then IoT Edge's series: 10 s × 2^n
	mostBackoff  = 5 * time.Minute
	healthyAfter = 10 * time.Minute
)

// next is how long to wait before the coming restart.
func (b *budget) next(now time.Time) time.Duration {
	if !b.up.IsZero() && now.Sub(b.up) >= healthyAfter {
		b.in, b.total = 0, 0
	}
	b.in++
	b.total++
	if b.in == 1 {
		return firstRestart
	}
	return min(baseBackoff<<min(b.in-2, 8), mostBackoff)
}

// stayDown is the exit code by which a program asks not to be started again.
const stayDown = 125

// again tells whether a program that ended like this is started again.
func again(policy deployment.RestartPolicy, exit sandbox.Exit, unhealthy bool) bool {
	bad := exit.Code != 0 || !exit.Known || unhealthy
	switch {
	case exit.Known && exit.Signal == "" && exit.Code == stayDown:
		return false
	case policy == deployment.Always:
		return true
	case policy == deployment.OnFailure, policy == deployment.OnUnhealthy:
		return bad
	}
	return false
}
