package supervisor

import "testing"

func TestFetchThatTakesForEverHoldsUpNoModuleAndNoNewerDeployment(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"one": wanted("a", "always", ``, ``)})
		d.expect("first deployment", "fetch a", "open one")
		d.deploy(map[string]string{"one": wanted("endless", "always", ``, ``), "two": wanted("b", "always", ``, ``)})
		d.expect("a deployment whose image never arrives", "fetch endless")
		d.expectStatuses("one running")
		d.deploy(map[string]string{"one": wanted("c", "always", ``, ``)})
		d.expect("the deployment after it", "fetch c", "signal one SIGTERM", "open one")
		d.expectStatuses("one running")
		d.expectCode(200, "")
	})
}
