package iothub

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestErrorBodies(t *testing.T) {
	t.Parallel()
	at := time.Date(2022, 10, 20, 18, 13, 38, 5e8, time.FixedZone("", 7200))
	err := NewError(CodeInvalid, `no "x"`, at)
	err.TrackingID = "0A"
	if got, want := string(err.Body()), `{"errorCode":400004,"trackingId":"0A","message":"no \"x\"","timestampUtc":"2022-10-20T16:13:38Z"}`; got != want {
		t.Errorf("body: got %s, want %s", got, want)
	}
	if got, want := string(err.RESTBody()), `{"Message":"ErrorCode:ArgumentInvalid;no \"x\"","ExceptionMessage":"Tracking ID:0A-TimeStamp:10/20/2022 16:13:38"}`; got != want {
		t.Errorf("REST body: got %s, want %s", got, want)
	}
	if err.Status() != 400 || err.Error() != `hub error 400004: no "x" (tracking id 0A)` {
		t.Errorf("got status %d, text %q", err.Status(), err.Error())
	}
	if id := NewError(1, "", at).TrackingID; !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(id) {
		t.Errorf("tracking id %q", id)
	}
	var target *Error
	if wrapped := errors.Join(err); !errors.As(wrapped, &target) || target != err {
		t.Error("errors.As does not find it")
	}
	if body := (Error{Message: strings.Repeat("x", 1e6), Timestamp: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)}).Body(); len(body) > 5000 || !json.Valid(body) {
		t.Errorf("an immense error prints %d bytes", len(body))
	}
}

func TestErrorsAreFoundInBodies(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		status  int
		body    string
		code    int
		message string
	}{
		"the twin form":                {400, `{"errorCode":400004,"trackingId":"x","message":"m","timestampUtc":"2022-10-20T18:13:38Z"}`, 400004, "m"},
		"the REST form":                {404, `{"Message":"ErrorCode:ModuleNotFound;no such module","ExceptionMessage":"Tracking ID:a-TimeStamp:b"}`, CodeModuleNotFound, "ErrorCode:ModuleNotFound;no such module"},
		"a REST code of other status":  {500, `{"Message":"ErrorCode:ModuleNotFound;x"}`, 500000, "ErrorCode:ModuleNotFound;x"},
		"only a message":               {503, `{"message":"try later"}`, 503000, "try later"},
		"empty":                        {429, ``, 429000, "no reason given"},
		"not JSON":                     {502, `<html>bad gateway</html>`, 502000, `<html>bad gateway</html>`},
		"JSON of another kind":         {500, `[1]`, 500000, `[1]`},
		"a time that does not parse":   {400, `{"errorCode":400004,"message":"m","timestampUtc":"yesterday"}`, 400000, `{"errorCode":400004,"message":"m","timestampUtc":"yesterday"}`},
		"a code that is none":          {400, `{"errorCode":-5,"message":"m"}`, 400000, "m"},
		"a page is cut":                {502, strings.Repeat("x", 100000), 502000, strings.Repeat("x", shown) + "…"},
		"a code beyond every status":   {400, `{"errorCode":1000000,"message":"m"}`, 400000, "m"},
		"a message of two lines":       {400, `{"errorCode":400004,"message":"m\n\u001b[2Jn"}`, 400004, "m  [2Jn"},
		"an error without its message": {404, `{"errorCode":404103}`, 404103, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ParseError(tc.status, []byte(tc.body))
			if got.Code != tc.code || got.Message != tc.message {
				t.Fatalf("got %d %q, want %d %q", got.Code, got.Message, tc.code, tc.message)
			}
		})
	}
}

func TestEveryCodeHasAName(t *testing.T) {
	t.Parallel()
	for _, code := range []int{
		CodeInvalid, CodeReplaced, CodeContentEncoding, CodeUnauthorized, CodeToken, CodeQuota, CodeQueueFull, CodeTier,
		CodeDeviceNotFound, CodeModuleNotFound, CodeNotOnline, CodeClosedRemotely, CodeDeviceExists, CodeLinkConflict,
		CodeModuleExists, CodePrecondition, CodeLockLost, CodeTooLarge, CodeThrottled, CodeInternal, CodeUnavailable,
		CodePartition, CodeGatewayTimeout,
	} {
		if name := CodeName(code); strings.HasPrefix(name, "Status") {
			t.Errorf("%d has no name", code)
		}
	}
	if got := CodeName(418007); got != "Status418" {
		t.Errorf("got %q, want Status418", got)
	}
}

func FuzzErrorBody(f *testing.F) {
	f.Add(400, []byte(`{"errorCode":400004,"trackingId":"x","message":"m","timestampUtc":"2022-10-20T18:13:38Z"}`))
	f.Add(404, []byte(`{"Message":"ErrorCode:ModuleNotFound;no such module"}`))
	f.Add(502, []byte("<html>\n\x1b[2J</html>"))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		e := ParseError(status, body)
		if text := e.Error(); strings.ContainsAny(text, "\r\n\x1b\x00") || len(text) > 3*(maxErrorMessage+shown)+100 {
			t.Errorf("got %d bytes, want one line: %.200q", len(text), text)
		}
	})
}
