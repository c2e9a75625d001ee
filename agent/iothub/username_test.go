package iothub

import (
	"strings"
	"testing"
)

func TestUserNames(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text  string
		want  UserName
		print string // "" = text
		bad   bool
	}{
		"a Node module": {
			text:  "hub.example.net/edge1/mod1/?api-version=2021-04-12&DeviceClientType=azure-iot-device%2F1.18.4%20(node%20v20.20.2%3B%20Debian%2012%3B%20x64)",
			want:  UserName{Hub: "hub.example.net", ID: ID{"edge1", "mod1"}, APIVersion: "2021-04-12", ClientType: "azure-iot-device/1.18.4 (node v20.20.2; Debian 12; x64)"},
			print: "hub.example.net/edge1/mod1/?api-version=2021-04-12&DeviceClientType=azure-iot-device%2F1.18.4%20%28node%20v20.20.2%3B%20Debian%2012%3B%20x64%29",
		},
		"a Python device with a model": {
			text: "hub/dev/?api-version=2020-09-30&DeviceClientType=py&model-id=dtmi%3Aa%3Bb%3B1",
			want: UserName{Hub: "hub", ID: ID{Device: "dev"}, APIVersion: "2020-09-30", ClientType: "py", ModelID: "dtmi:a;b;1"},
		},
		"an edge device on behalf of another": {
			text: "hub/leaf/?api-version=2021-04-12&auth-chain=leaf%3Bedge2%3Bedge1",
			want: UserName{Hub: "hub", ID: ID{Device: "leaf"}, APIVersion: "2021-04-12", AuthChain: "leaf;edge2;edge1"},
		},
		"three segments without question mark": {
			text:  "hub/dev/api-version=2016-11-14&DeviceClientType=c%23",
			want:  UserName{Hub: "hub", ID: ID{Device: "dev"}, APIVersion: "2016-11-14", ClientType: "c#"},
			print: "hub/dev/?api-version=2016-11-14&DeviceClientType=c%23",
		},
		"four segments without question mark": {
			text:  "hub/dev/mod/DeviceClientType=x&api-version=1",
			want:  UserName{Hub: "hub", ID: ID{"dev", "mod"}, APIVersion: "1", ClientType: "x"},
			print: "hub/dev/mod/?api-version=1&DeviceClientType=x",
		},
		"the six segments of one .NET client": {
			text:  "hub/dev/mod/api-version=2017-06-30/DeviceClientType=Microsoft.Azure.Devices.Client/1.5.1-preview-003",
			want:  UserName{Hub: "hub", ID: ID{"dev", "mod"}, APIVersion: "2017-06-30", ClientType: "Microsoft.Azure.Devices.Client/1.5.1-preview-003"},
			print: "hub/dev/mod/?api-version=2017-06-30&DeviceClientType=Microsoft.Azure.Devices.Client%2F1.5.1-preview-003",
		},
		"the first of equal members counts": {
			text:  "hub/dev/?api-version=1&api-version=2&DeviceClientType=a&DeviceClientType=b",
			want:  UserName{Hub: "hub", ID: ID{Device: "dev"}, APIVersion: "1", ClientType: "a"},
			print: "hub/dev/?api-version=1&DeviceClientType=a",
		},
		"unknown members are ignored": {
			text:  "hub/dev/?x=1&&api-version=1&y",
			want:  UserName{Hub: "hub", ID: ID{Device: "dev"}, APIVersion: "1"},
			print: "hub/dev/?api-version=1",
		},
		"the hub is not looked at": {text: "/dev/?api-version=1", want: UserName{ID: ID{Device: "dev"}, APIVersion: "1"}},
		"the edge agent":           {text: "hub/dev/$edgeAgent/?api-version=1", want: UserName{Hub: "hub", ID: ID{"dev", EdgeAgent}, APIVersion: "1"}},
		"a device id that is a query, in the form without one": {
			text:  "hub/?x/api-version=1",
			want:  UserName{Hub: "hub", ID: ID{Device: "?x"}, APIVersion: "1"},
			print: "hub/?x/?api-version=1",
		},

		"six segments of another client": {text: "hub/dev/mod/api-version=2017-06-30/DeviceClientType=Microsoft.Azure.Devices.Client/1.5.2", bad: true},
		"seven segments":                 {text: "hub/dev/mod/api-version=2017-06-30/DeviceClientType=Microsoft.Azure.Devices.Client/1.5.1-preview-003/x", bad: true},
		"no query":                       {text: "hub/dev", bad: true},
		"no api-version":                 {text: "hub/dev/?DeviceClientType=x", bad: true},
		"an empty api-version":           {text: "hub/dev/?api-version=", bad: true},
		"api-version without value":      {text: "hub/dev/mod/api-version", bad: true},
		"only a member that contains it": {text: "hub/dev/my-api-version=1", bad: true},
		"five segments":                  {text: "hub/dev/mod/x/?api-version=1", bad: true},
		"no device":                      {text: "hub//?api-version=1", bad: true},
		"an empty module":                {text: "hub/dev//?api-version=1", bad: true},
		"a bad device id":                {text: "hub/d v/?api-version=1", bad: true},
		"an id that is percent-encoded":  {text: "hub/dev/$edge Agent/?api-version=1", bad: true},
		"too long":                       {text: "hub/dev/?api-version=1&x=" + strings.Repeat("x", MaxUserName), bad: true},
		"not UTF-8":                      {text: "hub/dev/?api-version=\xff", bad: true},
		"empty":                          {text: "", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseUserName(tc.text)
			if (err != nil) != tc.bad || got != tc.want {
				t.Fatalf("got %+v, error %v, want %+v, error: %t", got, err, tc.want, tc.bad)
			}
			if tc.bad {
				return
			}
			want := tc.print
			if want == "" {
				want = tc.text
			}
			if got.String() != want {
				t.Fatalf("printed %q, want %q", got.String(), want)
			}
		})
	}
}

func FuzzUserName(f *testing.F) {
	for _, s := range []string{
		"hub/dev/?api-version=1", "hub/dev/mod/api-version=1&DeviceClientType=x%2F", "hub/dev/mod" + legacyTail,
		"hub/dev/?api-version=1&auth-chain=a%3Bb&model-id=%ff", "a/?x/?api-version=1", "//",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseUserName(s)
		if err != nil {
			if u != (UserName{}) {
				t.Fatalf("got %+v beside error %v", u, err)
			}
			return
		}
		text := u.String()
		if len(text) > MaxUserName {
			return // printing may lengthen a text that was just short enough
		}
		if again, err := ParseUserName(text); err != nil || again != u {
			t.Fatalf("%q parses to %+v, prints %q, parses to %+v, error %v", s, u, text, again, err)
		}
	})
}
