// Package bundle is the codec of Sandpiper bundles: one signed file, `.spb`, that holds one module.
//
// The nouns: [Header] finds the sections, [Manifest] says what the module is, an envelope carries the manifest and its
// signature, [Index] lists the chunks of the image, a chunk is a piece of the EROFS image in a zstd frame of its own. A
// bundle's identity is the SHA-256 of its manifest bytes ([Head].Digest): the manifest names the digests of everything else,
// and two signatures over one manifest are the same bundle. A [PublicKey] is trusted for module names with given prefixes.
//
// The package owns no goroutine and no file. It is shared by the device, which only reads, and by cmd/sandpiper-bundle, which
// also writes; nothing here depends on the host's architecture.
//
// The trap: nothing of a bundle may be believed before [ReadHead] has checked the signature, and nothing of an image before
// each chunk was compared with the index and the whole with the manifest. The header is not signed: it is used to find the
// envelope, and its lengths must then equal the signed ones.
//
// # Layout
//
// All integers are big-endian.
//
//	off  len  field
//	0    8    magic 89 53 50 42 0D 0A 1A 0A
//	8    2    format, 1
//	10   2    header length, 32
//	12   4    E = envelope length, 1 .. 65536
//	16   8    I = index length, 0 .. 16 MiB, 40 * number of chunks
//	24   8    P = payload length, 0 .. 2^40
//	32   E    envelope: COSE_Sign1 (tag 18) with the manifest as its payload
//	..        zero padding to a multiple of 8
//	..   I    index: for each chunk SHA-256 of the plain bytes (32) | plain length (4) | stored length (4)
//	..        zero padding to a multiple of 4096
//	..   P    payload: the chunks in image order, each one zstd frame, or plain when stored length == plain length
//
// The file ends with the payload. Non-zero padding and trailing bytes are errors. The device keeps everything before the
// payload as `<bundle digest>.spm`, and the image itself.
//
// # Manifest
//
// CBOR in core deterministic encoding (RFC 8949, 4.2): one manifest has one encoding, and any other is refused.
//
//	manifest = {
//	  1 => 1,                         ; schema
//	  2 => module-name,
//	  3 => tstr .size (1..64),        ; version, for people
//	  4 => uint .size 8,              ; sequence: anti-rollback number, only grows for a module
//	  5 => 1 / 2 / 3,                 ; kind: module / agent / system
//	  6 => [1*16 tstr .size (1..64)], ; compatible device classes; "*" = all, for kind 1 only
//	  7 => platform,
//	  8 => image,
//	  9 => index,
//	  ? 10 => runtime,                ; kind 1 only
//	  ? 11 => [1*32 dependency],
//	  ? 12 => uint,                   ; not before, Unix seconds
//	  ? 13 => uint,                   ; expires: not newly installed after it, Unix seconds
//	  ? 14 => build,
//	  ? 15 => uint,                   ; lowest sequence of the agent that may install it
//	  ? 16 => health,
//	  ? 17 => uint,                   ; floor: after commit never again below this sequence, <= field 4
//	  * (1000..1999) => any           ; ignorable extensions; every other unknown key is refused
//	}
//	module-name = tstr .regexp "[a-z][a-z0-9-]{0,62}"
//	platform    = { 1 => "linux", 2 => tstr, ? 3 => tstr, ? 4 => tstr }  ; os, arch, variant, lowest kernel "5.10"
//	image       = { 1 => 1 / 2, 2 => uint, 3 => digest, 4 => digest, ? 5 => [digest, digest] }
//	              ; EROFS / squashfs, bytes (multiple of 4096), SHA-256, fs-verity digest, dm-verity root hash and salt
//	index       = { 1 => uint, 2 => digest, 3 => uint, 4 => [1, 8192, 32768, 131072] }
//	              ; bytes, SHA-256, payload bytes, chunker (gear table, min, average, max)
//	dependency  = { 1 => module-name, 2 => uint, ? 3 => uint }           ; name, min sequence, max sequence
//	build       = { ? 1 => tstr, ? 2 => uint, ? 3 => [+ tstr] }          ; source, SOURCE_DATE_EPOCH, tools
//	health      = { ? 1 => uint, ? 2 => tstr, ? 3 => uint }              ; probation seconds, probe, max restarts
//	digest      = bstr .size 32
//
// arch is Go's name (amd64, arm, arm64, riscv64 …), or "any" for a module without machine code; variant is v6, v7 or v8 for
// arm. Optional numbers and texts that are zero or empty are left out, never written.
//
// The runtime field says how the module starts; the deployment may override args, env and user:
//
//	runtime = {
//	  1 => [1*64 tstr .size (1..4096)],  ; args: program and its arguments
//	  ? 2 => { 1*64 env-name => tstr .size (0..4096) },
//	  ? 3 => tstr .size (1..4096),       ; cwd, an absolute path; default "/", or "/app" with the host view
//	  ? 4 => user,                       ; default: the sandbox's own choice
//	  ? 5 => tstr,                       ; stop signal, "SIGTERM" when absent
//	  ? 6 => true,                       ; host view: the image is /app in a read-only view of the host
//	}                                    ;   instead of the module's own root
//	env-name = tstr .regexp "[A-Za-z_][A-Za-z0-9_]{0,127}"
//	user     = tstr .regexp "[a-z0-9_][a-z0-9_-]{0,31}(:[a-z0-9_][a-z0-9_-]{0,31})?"   ; user[:group], names or numbers
//
// # Signature
//
// COSE_Sign1 (RFC 9052). The protected header holds exactly alg (EdDSA, or ES256 for keys in hardware), kid and the content
// type application/sandpiper-manifest+cbor; the unprotected header is empty; external_aad is "sandpiper/bundle/v1". The kid is
// the first 16 bytes of the key's RFC 9679 thumbprint (SHA-256). alg must be the algorithm of the trusted key: the sender does
// not choose. Built but unsigned, a bundle holds an envelope with an empty protected header and an empty signature, which no
// device accepts.
//
// # Keys
//
// A public key file is PEM, one block "PUBLIC KEY" (X.509 SubjectPublicKeyInfo), Ed25519 or ECDSA P-256; a private key file is
// one block "PRIVATE KEY" (PKCS #8). OpenSSL and hardware tokens write the same. The device's configuration lists the public
// key files it trusts, each with the module-name prefixes it may sign for:
//
//	[[bundles.trusted_keys]]
//	file = "/etc/sandpiper/keys/acme.pub"
//	modules = ["acme-", "filter"]
//
// # Chunks
//
// The image is cut by FastCDC with normalised chunking. gear[i] is the first 8 bytes, little-endian, of SHA-256("g" || i), i
// one byte: table v1. The fingerprint starts at 0 after the first 8192 bytes of a chunk, and each further byte b makes it
// (h << 1) + gear[b]. The chunk ends after that byte if the top 17 bits are zero (up to 32768 bytes) or the top 13 bits are zero
// (beyond), at 131072 bytes, or with the image. Cut points never change for table v1: a device reuses chunks by them.
//
// # Deltas
//
// A `.spd` turns the image of one bundle into that of another. It stands beside the new bundle and is called
// {first 16 digits of the old image's digest}-{of the new one's}.spd:
//
//	off  len  field
//	0    8    magic 89 53 50 44 0D 0A 1A 0A
//	8    2    version, 1
//	10   2    flags: bit 0 = stored lengths follow
//	12   32   SHA-256 of the old image
//	44   32   SHA-256 of the new image
//	76   8    bytes of the new image
//	84   ..   one zstd stream, window up to 1 MiB, no dictionary: records until the image is whole, and then the stored lengths
//
//	record = uvarint d | uvarint x | svarint seek | d bytes | x bytes
//	stored lengths = uvarint number of chunks | for each a uvarint, its length in the payload
//
// A record makes d + x bytes, at least one: d of the old image from the present position on, each with the difference added modulo
// 256, then x that are given. The position moves by d and then by seek, and never leaves the old image. Varints are those of
// encoding/binary. A delta is not signed: each chunk that it makes is compared with the signed index of the new bundle, and the
// first that differs ends it. Where the index is not there yet, the whole image is compared with the manifest, and its chunks with
// their stored lengths must be the signed index: a large image's index is many times its delta.
package bundle
