package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shortDir is a temporary directory whose name does not grow with the test's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl") //nolint:usetesting // t.TempDir is too long a path for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// serve runs a server of cfg on a socket of its own and returns a client of it.
func serve(t *testing.T, cfg Config) *Client {
	t.Helper()
	path := filepath.Join(shortDir(t), "control.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- New(cfg).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: got %v, want nil", err)
		}
	})
	return Dial(path)
}

func TestAQuestionIsAnsweredByTheFuncBehindIt(t *testing.T) {
	t.Parallel()
	var verbs []string
	c := serve(t, Config{
		Status: func(context.Context) (Status, error) {
			return Status{Device: "edge1", Modules: []Module{{Name: "filter", Status: "running"}}}, nil
		},
		Verb: func(_ context.Context, verb, module string) error {
			verbs = append(verbs, verb+" "+module)
			return nil
		},
		Twin: func(_ context.Context, module string) (Twin, error) {
			return Twin(fmt.Sprintf(`{"of":%q}`, module)), nil
		},
		Apply: func(_ context.Context, manifest []byte) (Plan, error) {
			return Plan{Steps: []Step{{Verb: "start", Module: string(manifest)}}}, nil
		},
		Logs: func(_ context.Context, _ string, want LogRequest, w io.Writer) error {
			_, err := fmt.Fprintf(w, "tail %d follow %t\n", want.Tail, want.Follow)
			return err
		},
	})
	ctx := t.Context()

	status, err := c.Status(ctx)
	if err != nil || status.Device != "edge1" || len(status.Modules) != 1 {
		t.Errorf("status: got %+v, %v", status, err)
	}
	if err := c.Verb(ctx, "restart", "filter"); err != nil || len(verbs) != 1 || verbs[0] != "restart filter" {
		t.Errorf("verb: got %q, %v, want one restart of filter", verbs, err)
	}
	twin, err := c.Twin(ctx, "$edgeAgent")
	if err != nil || string(twin) != `{"of":"$edgeAgent"}` {
		t.Errorf("twin: got %s, %v", twin, err)
	}
	plan, err := c.Apply(ctx, []byte("m"))
	if err != nil || len(plan.Steps) != 1 || plan.Steps[0].Module != "m" {
		t.Errorf("apply: got %+v, %v", plan, err)
	}
	var out bytes.Buffer
	if err := c.Logs(ctx, "filter", LogRequest{Tail: 3, Follow: true}, &out); err != nil || out.String() != "tail 3 follow true\n" {
		t.Errorf("logs: got %q, %v", out.String(), err)
	}
}

func TestAnErrorOfTheAgentReachesTheOperatorAsItsOneLine(t *testing.T) {
	t.Parallel()
	c := serve(t, Config{
		Verb: func(_ context.Context, _, module string) error {
			return fmt.Errorf("module %q is not here: %w", module, ErrNotFound)
		},
		Apply: func(context.Context, []byte) (Plan, error) {
			return Plan{}, errors.New("modulesContent: want an object")
		},
	})
	for claim, c := range map[string]struct {
		err  error
		want string
	}{
		"a module that is not there": {c.Verb(t.Context(), "stop", "ghost"), `module "ghost" is not here`},
		"a verb that is not one":     {c.Verb(t.Context(), "explode", "x"), "want start, stop, restart, pause or resume"},
		"a manifest that is wrong":   {second(c.Apply(t.Context(), []byte("{"))), "modulesContent: want an object"},
		"a manifest too large":       {second(c.Apply(t.Context(), make([]byte, MaxManifest+1))), "too large"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", claim, c.err, c.want)
		}
	}
}

func TestMetricsAreCopiedAsTheyAre(t *testing.T) {
	t.Parallel()
	c := serve(t, Config{Metrics: func(w io.Writer) error { _, err := io.WriteString(w, "a 1\n"); return err }})
	var out bytes.Buffer
	if err := c.Metrics(t.Context(), &out); err != nil || out.String() != "a 1\n" {
		t.Errorf("got %q, %v, want a 1", out.String(), err)
	}
}

func second(_ Plan, err error) error { return err }

func TestNoAgentIsSaidWithWhatToDo(t *testing.T) {
	t.Parallel()
	_, err := Dial(filepath.Join(shortDir(t), "none.sock")).Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "start it with `sandpiper agent`") {
		t.Errorf("got %v, want the remedy", err)
	}
}

func TestAnAgentThatHangsIsNotWaitedForForEver(t *testing.T) {
	t.Parallel()
	c := serve(t, Config{Status: func(ctx context.Context) (Status, error) {
		<-ctx.Done()
		return Status{}, ctx.Err()
	}})
	c.patience = 10 * time.Millisecond
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "does not answer within 10ms") || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that it does not answer", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: got %v", err)
	}
}

func TestTheSocketIsForItsOwnerOnly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortDir(t), "control.sock")
	for range 2 { // the second takes the place of the first, as after a crash
		l, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info.Mode(), err)
	}
}

func TestTheDocumentsHaveNoNullLists(t *testing.T) {
	t.Parallel()
	raw, err := json.Marshal(Status{Links: []Link{}, Modules: []Module{}, Queues: []Queue{}, Routes: []Route{}, Sandbox: []Capability{}, Problems: []string{},
		Store: Store{Why: []string{}, Wear: Wear{Modules: []ModuleWear{}}}})
	if err != nil || bytes.Contains(raw, []byte("null")) {
		t.Errorf("got %s, %v, want no null", raw, err)
	}
}

func TestAProgramEndsWithTheOperatorThoughItDoesNotRead(t *testing.T) {
	t.Parallel()
	began, ended := make(chan struct{}), make(chan struct{})
	c := serve(t, Config{Exec: func(ctx context.Context, _ string, _ ExecRequest, with Streams) (int, error) {
		if _, err := with.In.Read(make([]byte, 1)); err != nil { // the rest waits
			return 0, err
		}
		close(began)
		<-ctx.Done()
		close(ended)
		return 0, ctx.Err()
	}})
	ctx, hangUp := context.WithCancel(t.Context())
	go func() {
		<-began
		hangUp()
	}()
	endless := io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)), neverEnding{ctx})
	if _, err := c.Exec(ctx, "m", ExecRequest{Args: []string{"sleep"}}, Streams{In: endless}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the context", err)
	}
	<-ended
}

// neverEnding has nothing to read.
type neverEnding struct{ ctx context.Context }

func (n neverEnding) Read([]byte) (int, error) {
	<-n.ctx.Done()
	return 0, io.EOF
}

func TestARefusalIsTheReasonAlone(t *testing.T) {
	t.Parallel()
	c := serve(t, Config{Verb: func(_ context.Context, verb, _ string) error {
		return fmt.Errorf("it does not run: %w", map[string]error{"pause": ErrRefused, "stop": ErrNotFound}[verb])
	}})
	for _, verb := range []string{"pause", "stop"} {
		if err := c.Verb(t.Context(), verb, "m"); err == nil || err.Error() != "it does not run" {
			t.Errorf("%s: got %v, want the reason", verb, err)
		}
	}
}

func TestAProgramThatCannotBeRunSaysWhyAndNoMore(t *testing.T) {
	t.Parallel()
	c := serve(t, Config{Exec: func(context.Context, string, ExecRequest, Streams) (int, error) {
		return 0, fmt.Errorf("module m is not in the deployment: %w", ErrNotFound)
	}})
	if _, err := c.Exec(t.Context(), "m", ExecRequest{Args: []string{"ls"}}, Streams{}); err == nil || err.Error() != "module m is not in the deployment" {
		t.Errorf("got %v", err)
	}
}
