package hal

// Node is a raw device node that a module is granted.
type Node struct {
	Path  string
	Write bool
}

// NodeGrant is the grant that asks for a raw device node by its path; false when the owner named none of that path.
func (s *Server) NodeGrant(path string, write bool) (Grant, bool) {
	for _, t := range s.things {
		if t.Kind == KindNode && t.Node == path {
			return Grant{Name: t.Name, Read: true, Write: write}, true
		}
	}
	return Grant{}, false
}

// Nodes are the raw device nodes of a module, in order of names: what this server does not stand in front of.
func (s *Server) Nodes(who string) []Node {
	defer s.locked()()
	var list []Node
	for _, name := range s.order {
		if g := s.grants[who][name]; g != nil && g.thing.Kind == KindNode {
			list = append(list, Node{g.thing.Node, g.Write})
		}
	}
	return list
}

// Status is one granted resource as a module sees it.
type Status struct {
	_     noCompare
	Name  string `json:"name"`
	Kind  Kind   `json:"kind"`
	Read  bool   `json:"read"`
	Write bool   `json:"write"`
	Unit  string `json:"unit,omitempty"`
	State string `json:"state"` // ok, unsafe, stuck, gone, busy, leased, unmediated

	Limits []float64 `json:"limits,omitempty"`  // least and most of a value; none = a line's 0 and 1, or nobody set them
	Rate   float64   `json:"rate,omitempty"`    // operations a second
	MaxOn  float64   `json:"max_on,omitempty"`  // seconds away from safe
	Lease  float64   `json:"deadman,omitempty"` // seconds
}

// List gives what is granted to a module, in order of names; all resources for who = "".
func (s *Server) List(who string) []Status {
	defer s.locked()()
	list := []Status{}
	for _, name := range s.order {
		t, g := s.things[name], s.grants[who][name]
		if who != "" && g == nil {
			continue
		}
		st := Status{Name: name, Kind: t.Kind, Unit: t.Unit, State: t.state, Read: true, Write: t.writable()}
		if g != nil {
			st.Read, st.Write = g.Read, g.Write
			st.Rate, st.Lease = float64(g.Rate), g.Deadman.Seconds()
		}
		if st.MaxOn = t.Limits.MaxOn.Seconds(); t.Limits.Min != 0 || t.Limits.Max != 0 {
			st.Limits = []float64{t.Limits.Min, t.Limits.Max}
		} else if t.PWM != nil && t.PWM.MaxDuty > 0 {
			st.Limits = []float64{0, t.PWM.MaxDuty}
		}
		switch {
		case t.debt != nil && t.debt.refused && t.state == "ok":
			st.State = "unsafe"
		case t.worker.isStuck():
			st.State = "stuck"
		case t.lease != nil && t.lease.who != who:
			st.State = "leased"
		}
		list = append(list, st)
	}
	return list
}
