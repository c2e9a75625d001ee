package container

import "syscall"

// inherit adds the file that the next agent inherits. An agent without it runs all the same: its outputs do not outlive it then.
func (w *warden) inherit(attr *syscall.ProcAttr) (done func()) {
	if w.cfg.Inherit == nil {
		return func() {}
	}
	f, err := w.cfg.Inherit()
	if err != nil {
		w.cfg.Logger.Error("outputs are not kept for the agent", "err", err)
		return func() {}
	}
	attr.Files = append(attr.Files, f.Fd())
	attr.Env = append(attr.Env, w.cfg.InheritVariable+"=3")
	return func() { _ = f.Close() } // the agent has its copy, or there is none
}
