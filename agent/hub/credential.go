package hub

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// authDoc is how an identity proves itself.
type authDoc struct {
	Type           string `json:"type"`
	Primary        string `json:"primary,omitempty"` // base64
	Secondary      string `json:"secondary,omitempty"`
	PrimaryThumb   string `json:"primaryThumb,omitempty"` // upper-case hex
	SecondaryThumb string `json:"secondaryThumb,omitempty"`
}

// keys are the symmetric keys that may sign for the identity; none when it proves itself otherwise.
func (a authDoc) keys() []iothub.Key {
	if a.Type != authSAS {
		return nil
	}
	var keys []iothub.Key
	for _, text := range []string{a.Primary, a.Secondary} {
		if key, err := iothub.ParseKey(text); err == nil { // checked when it was stored
			keys = append(keys, key)
		}
	}
	return keys
}

func (a authDoc) thumbprints() thumbprints {
	return thumbprints{Primary: optional(a.PrimaryThumb), Secondary: optional(a.SecondaryThumb)}
}

// apply sets what a body says about authentication over what is there. nil keeps all, or makes keys for a new identity.
func (b *authBody) apply(have authDoc) (authDoc, error) {
	kind := have.Type
	if b != nil && b.Type != "" {
		kind = b.Type
	}
	if b == nil {
		b = &authBody{}
	}
	switch kind {
	case "", authSAS:
		return b.applyKeys(have)
	case authSelf:
		return b.applyThumbprints(have)
	case authCA, authNone:
		return authDoc{Type: kind}, nil
	}
	return authDoc{}, errors.New("authentication.type must be sas, selfSigned, certificateAuthority or none")
}

func (b *authBody) applyKeys(have authDoc) (authDoc, error) {
	if b.SymmetricKey == nil {
		b.SymmetricKey = &symmetricKeys{}
	}
	primary, err := pickKey("primaryKey", b.SymmetricKey.Primary, have.Primary)
	if err != nil {
		return authDoc{}, err
	}
	secondary, err := pickKey("secondaryKey", b.SymmetricKey.Secondary, have.Secondary)
	if err != nil {
		return authDoc{}, err
	}
	return authDoc{Type: authSAS, Primary: primary, Secondary: secondary}, nil
}

// pickKey is the key given, else the one that is there, else a new one.
func pickKey(name string, given *string, have string) (string, error) {
	switch {
	case given != nil && *given != "":
		key, err := iothub.ParseKey(*given)
		if err != nil {
			return "", fmt.Errorf("authentication.symmetricKey.%s: %w", name, err)
		}
		if len(key) < 16 || len(key) > 64 {
			return "", fmt.Errorf("authentication.symmetricKey.%s has %d bytes, 16 to 64 are allowed", name, len(key))
		}
		return *given, nil
	case have != "":
		return have, nil
	}
	return iothub.NewKey().Text(), nil
}

func (b *authBody) applyThumbprints(have authDoc) (authDoc, error) {
	out := authDoc{Type: authSelf, PrimaryThumb: have.PrimaryThumb, SecondaryThumb: have.SecondaryThumb}
	if b.Thumbprint != nil {
		for _, side := range []struct {
			name  string
			given *string
			into  *string
		}{{"primaryThumbprint", b.Thumbprint.Primary, &out.PrimaryThumb}, {"secondaryThumbprint", b.Thumbprint.Secondary, &out.SecondaryThumb}} {
			if side.given == nil || strings.TrimSpace(*side.given) == "" {
				continue
			}
			thumb, ok := normalThumbprint(*side.given)
			if !ok {
				return authDoc{}, fmt.Errorf("authentication.x509Thumbprint.%s must be 40 or 64 hexadecimal digits", side.name)
			}
			*side.into = thumb
		}
	}
	if out.PrimaryThumb == "" && out.SecondaryThumb == "" {
		return authDoc{}, errors.New("authentication.type selfSigned needs a thumbprint")
	}
	return out, nil
}

// normalThumbprint is a SHA-1 or SHA-256 fingerprint in the stored form; false when it is none.
func normalThumbprint(text string) (string, bool) {
	if len(text) > 128 {
		return "", false
	}
	text = strings.ToUpper(strings.NewReplacer(":", "", " ", "").Replace(text))
	if len(text) != 40 && len(text) != 64 {
		return "", false
	}
	return text, strings.Trim(text, "0123456789ABCDEF") == ""
}
