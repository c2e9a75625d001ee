package bundle

import (
	"errors"
	"fmt"
	"io"
)

// Code says which rule a bundle broke. Codes are stable: tests, logs and reports use them. A code is also the sentinel of its
// refusals: errors.Is(err, ErrSequence).
type Code string

// Error prints the code.
func (c Code) Error() string { return string(c) }

// The codes. Final says which of them time cannot change.
const (
	ErrMagic     Code = "E_MAGIC"    // not a bundle, or damaged by a text-mode transfer
	ErrVersion   Code = "E_VERSION"  // a format this build does not know
	ErrLength    Code = "E_LEN"      // lengths out of range or contradicting the signed ones, padding, trailing bytes
	ErrTruncated Code = "E_TRUNC"    // the file ends too early
	ErrCBOR      Code = "E_CBOR"     // the manifest is not well-formed or not deterministic
	ErrField     Code = "E_FIELD"    // a manifest field has a value that is not allowed
	ErrSignature Code = "E_SIG"      // no signature, or it does not verify
	ErrKey       Code = "E_KEY"      // signed by a key that is not trusted
	ErrAlgorithm Code = "E_ALG"      // the signature names another algorithm than the key's
	ErrRole      Code = "E_ROLE"     // the key may not sign this module, or this kind
	ErrIndex     Code = "E_INDEX"    // the index contradicts the manifest or itself
	ErrChunk     Code = "E_CHUNK"    // a chunk is not what the index says
	ErrDigest    Code = "E_DIGEST"   // a digest does not match
	ErrImage     Code = "E_IMAGE"    // the image is not a well-formed file system of the kind the manifest says
	ErrSequence  Code = "E_SEQ"      // older than what this device has accepted
	ErrExpired   Code = "E_EXPIRED"  // past the manifest's expiry
	ErrEarly     Code = "E_EARLY"    // before the manifest's start
	ErrClass     Code = "E_COMPAT"   // for another device class
	ErrArch      Code = "E_ARCH"     // for another processor
	ErrKernel    Code = "E_KERNEL"   // needs a newer kernel
	ErrAgent     Code = "E_AGENT"    // needs a newer agent
	ErrSpace     Code = "E_SPACE"    // no room for it
	ErrReference Code = "E_REF"      // a reference that names no bundle
	ErrAbsent    Code = "E_ABSENT"   // not on this device
	ErrTransfer  Code = "E_TRANSFER" // the server's answer cannot be used
	ErrDependsOn Code = "E_DEP"      // a module it depends on is missing or has another sequence
	ErrChanged   Code = "E_CHANGED"  // the file was replaced while it was read
	ErrPlatform  Code = "E_MOUNT"    // this kernel cannot mount it
	ErrOCI       Code = "E_OCI"      // an OCI index, manifest, config or layer that is malformed, of another kind or for no machine of ours
	ErrPath      Code = "E_PATH"     // a name in a layer that leads out of the image, through a link, or is none
	ErrLink      Code = "E_LINK"     // a hard link in a layer to what is not there
	ErrNode      Code = "E_NODE"     // a device or pipe in a layer
	ErrLimit     Code = "E_LIMIT"    // more of something than is taken from anybody
	ErrMetered   Code = "E_METERED"  // this month's bytes on metered links are used up
	ErrDelta     Code = "E_DELTA"    // a delta that is not one between these images; the chunks are fetched instead
)

// Final reports whether the same bundle will be refused again however often it is fetched. The rest depends on the clock, the
// disk, the server, or on what else is installed.
func (c Code) Final() bool {
	switch c {
	case ErrTruncated, ErrChanged, ErrTransfer, ErrAbsent, ErrEarly, ErrExpired, ErrSpace, ErrDependsOn, ErrPlatform, ErrMetered, ErrDelta:
		return false
	default:
		return true
	}
}

// Error is a refusal. Why is one clause for a person: what is wrong, and after a colon or semicolon what to do.
type Error struct {
	Code Code
	Why  string
	Err  error // the cause below, or nil
}

// Error prints the clause and the code.
func (e *Error) Error() string { return fmt.Sprintf("%s [%s]", e.Why, e.Code) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is the error's code.
func (e *Error) Is(target error) bool { return target == e.Code }

// Reject makes an [Error].
func Reject(code Code, format string, args ...any) error {
	return &Error{Code: code, Why: fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of the refusal in err's chain, or "" when it is no refusal (a disk or network error).
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

// readFull fills p from r. An early end is a refusal that names the part; any other error is the reader's own.
func readFull(r io.Reader, p []byte, part string) error {
	_, err := io.ReadFull(r, p)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &Error{
			Code: ErrTruncated,
			Why:  "the bundle ends in its " + part + ": fetch or copy it again",
			Err:  io.ErrUnexpectedEOF,
		}
	default:
		return fmt.Errorf("read %s: %w", part, err)
	}
}
