package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

func (s *shared) deployCommand() *cobra.Command {
	plan := &cobra.Command{
		Use: "plan FILE", Short: "What applying a manifest would do (FILE - is standard input)", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			plan, err := s.manifest(cmd.Context(), args[0], "planning", s.client().Plan)
			if err != nil {
				return err
			}
			return s.printPlan(plan)
		},
	}
	var patience time.Duration
	apply := &cobra.Command{
		Use: "apply FILE", Short: "Make a manifest the deployment of a standalone device (FILE - is standard input)", Args: cobra.ExactArgs(1),
		Long: "Store the manifest as the deployment of this device, print the steps to it and wait until they are done. When it returns the manifest is\n" +
			"stored, whatever became of it: what fails is tried again. The exit code is 1 when the deployment is not applied.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if patience < 0 {
				return console.Usagef("--wait %s: want 0 or more", patience)
			}
			return s.apply(cmd.Context(), args[0], patience)
		},
	}
	apply.Flags().DurationVar(&patience, "wait", 10*time.Minute, "how long to wait until it is applied; 0 = not at all")
	show := &cobra.Command{
		Use: "show", Short: "The manifest in force", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			doc, err := s.client().Deployment(cmd.Context())
			if err != nil {
				return err
			}
			return s.printDocument(doc)
		},
	}
	return console.Group("deploy", "Plan, apply and show the deployment of this device", s.withJSON(plan), s.withJSON(apply), s.withJSON(show))
}

// manifest has the agent read a manifest.
func (s *shared) manifest(ctx context.Context, file, what string, ask func(context.Context, []byte) (control.Plan, error)) (control.Plan, error) {
	text, err := s.readFile(file, control.MaxManifest)
	if err != nil {
		return control.Plan{}, err
	}
	done := console.Working(s.err, what+" "+file)
	defer done()
	return ask(ctx, text)
}

// printPlan prints what is to be done.
func (s *shared) printPlan(plan control.Plan) error {
	if s.json {
		return console.JSON(s.out, plan)
	}
	for _, note := range plan.Notes {
		fmt.Fprintln(s.err, "note:", note)
	}
	if len(plan.Steps) == 0 {
		_, err := fmt.Fprintln(s.out, "nothing to do")
		return err
	}
	var rows [][]string
	for _, step := range plan.Steps {
		rows = append(rows, []string{step.Verb, step.Module, step.Why})
	}
	return console.Table(s.out, "STEP MODULE WHY", rows)
}

// apply stores a manifest and waits for what becomes of it.
func (s *shared) apply(ctx context.Context, file string, patience time.Duration) error {
	plan, err := s.manifest(ctx, file, "applying", s.client().Apply)
	if err != nil {
		return err
	}
	if !s.json {
		if err := s.printPlan(plan); err != nil {
			return err
		}
	}
	var became control.Deployment
	if patience > 0 {
		done := console.Progress(s.err, s.arriving(ctx, "applying "+file))
		became, err = s.applied(ctx, plan.Version, patience)
		done()
		if err != nil {
			return err
		}
	}
	if s.json {
		if err := console.JSON(s.out, struct {
			control.Plan
			Deployment *control.Deployment `json:"deployment,omitempty"` // absent when nobody waited
		}{plan, omitZero(became)}); err != nil {
			return err
		}
	}
	switch {
	case patience <= 0:
		return nil
	case became.Code != codeApplied:
		return fmt.Errorf("deployment %d is stored and not applied: %s; it is tried again, see sandpiper status", became.Version, became.Description)
	case !s.json:
		fmt.Fprintf(s.out, "deployment %d is applied\n", became.Version)
	}
	return nil
}

// The codes of a deployment of which every step was done, and of one that is being looked at.
const (
	codeApplied  = 200
	codeUnderWay = 406
)

func omitZero(d control.Deployment) *control.Deployment {
	if d == (control.Deployment{}) {
		return nil
	}
	return &d
}

// applied waits until the agent says what became of a version of the deployment. An agent that is away for a moment is waited for.
func (s *shared) applied(interrupted context.Context, version int64, patience time.Duration) (control.Deployment, error) {
	ctx, cancel := context.WithTimeout(interrupted, patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := s.client().Status(ctx)
		if d := status.Deployment; err == nil && d.Version >= version && d.Code != codeUnderWay {
			return status.Deployment, nil
		}
		select {
		case <-ctx.Done():
			if err := interrupted.Err(); err != nil {
				return control.Deployment{}, err
			}
			why := "its steps take longer"
			if err != nil {
				why = console.OneLine(err)
			} else if t := status.Transfer; t != nil {
				why = "an image arrives: " + transferLine(*t)
			}
			return control.Deployment{}, fmt.Errorf("deployment %d is stored, and not applied within %s: %s; it goes on, see sandpiper status --watch", version, patience, why)
		case <-tick.C:
		}
	}
}

// readFile reads a file named on the command line, or standard input for "-", of at most limit bytes.
func (s *shared) readFile(name string, limit int64) ([]byte, error) {
	in := s.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s: larger than %d bytes", name, limit)
	}
	return text, err
}
