package agent

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/supervisor"
	"github.com/sandpiper-edge/sandpiper/sandbox/image"
)

// describe is the image as the supervisor keeps it. What a module cannot run with is refused here, before anything is stopped.
func (s shelf) describe(m deployment.Module, img image.Image) (supervisor.Image, error) {
	s.a.arrived.add(img.Digest)
	out := supervisor.Image{
		Digest: img.Digest.String(), Args: img.Runtime.Args, Cwd: img.Runtime.Cwd, User: img.Runtime.User, Stop: img.Runtime.Stop, Entry: min(1, len(img.Runtime.Args)),
	}
	for key, value := range img.Runtime.Env {
		out.Env = append(out.Env, key+"="+value)
	}
	slices.Sort(out.Env)
	if img.OCI != nil {
		out = ofOCI(img)
	}
	refuse := func(member, why, want string) (supervisor.Image, error) {
		return out, &deployment.Error{Path: "modules." + m.Name + "." + member, Why: why, Want: want, Code: deployment.CodeFormat}
	}
	if img.Runtime.HostView != (m.Type == deployment.Native) {
		return refuse("type", "it is "+m.Type.String()+", and the image was built for the other kind of root", "native for a bundle built with --host-view, sandbox for one built without")
	}
	if len(arguments(m, out)) == 0 {
		return refuse("settings.args", "neither the deployment nor the image says what to run", "")
	}
	if user := cmp.Or(m.Settings.User, out.User); user != "" && m.Type != deployment.Native {
		err := s.a.images.CheckUser(img, user)
		if errors.Is(err, image.ErrNoUser) {
			return refuse("settings.user", err.Error(), "a user of the image, or a number")
		}
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

// ofOCI takes from an OCI image's config what a sandbox is made from. Its ports are shown and have no effect.
func ofOCI(img image.Image) supervisor.Image {
	c := img.OCI.Config
	out := supervisor.Image{
		Digest: img.Digest.String(), Args: slices.Concat(c.Entrypoint, c.Cmd), Entry: len(c.Entrypoint), Env: c.Env, Cwd: c.Cwd, User: c.User, Stop: c.Stop,
	}
	if h := c.Health; h != nil && len(h.Args()) > 0 {
		out.Health = &deployment.ImageHealth{
			Command: h.Args(), Interval: h.Interval, Timeout: h.Timeout, Start: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	made := []string{"/dev", "/proc", "/sys", "/tmp", "/run"} // every sandbox has its own
	for _, v := range c.Volumes {
		if !slices.ContainsFunc(made, func(dir string) bool { return v == dir || strings.HasPrefix(v, dir+"/") }) {
			out.Volumes = append(out.Volumes, v)
		}
	}
	return out
}
