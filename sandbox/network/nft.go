package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// batch is one transaction of nftables: all of it comes into force, or nothing does. The messages are those of
// linux/netfilter/nf_tables.h; numbers in attributes are big endian unless the kernel compares them with its own.
type batch struct {
	family byte
	raw    []byte
	seq    uint32
	last   int // where the newest message begins
}

const (
	familyIPv4 = unix.NFPROTO_IPV4
	familyIPv6 = unix.NFPROTO_IPV6

	nfDrop, nfAccept = 0, 1 // linux/netfilter.h

	nlHeader   = 16
	batchBegin = unix.NFNL_MSG_BATCH_BEGIN
	batchEnd   = unix.NFNL_MSG_BATCH_END
	subsystem  = unix.NFNL_SUBSYS_NFTABLES
)

func newBatch() *batch {
	b := &batch{}
	b.message(batchBegin, 0, unix.AF_UNSPEC, subsystem, nil)
	return b
}

// message appends one message with its attributes.
func (b *batch) message(kind, flags uint16, family byte, resource uint16, attrs []byte) {
	b.seq++
	b.last = len(b.raw)
	b.raw = binary.NativeEndian.AppendUint32(b.raw, uint32(nlHeader+4+len(attrs)))
	b.raw = binary.NativeEndian.AppendUint16(b.raw, kind)
	b.raw = binary.NativeEndian.AppendUint16(b.raw, flags|unix.NLM_F_REQUEST)
	b.raw = binary.NativeEndian.AppendUint32(b.raw, b.seq)
	b.raw = binary.NativeEndian.AppendUint32(b.raw, 0)
	b.raw = append(b.raw, family, unix.NFNETLINK_V0)
	b.raw = binary.BigEndian.AppendUint16(b.raw, resource)
	b.raw = append(b.raw, attrs...)
}

func (b *batch) nft(kind, flags uint16, attrs ...[]byte) {
	b.message(subsystem<<8|kind, flags, b.family, 0, join(attrs))
}

// table begins a table anew: what one of that name held is gone with the transaction.
func (b *batch) table(family byte, name string) {
	b.drop(family, name)
	b.nft(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, text(unix.NFTA_TABLE_NAME, name))
}

// drop removes a table, which need not be there.
func (b *batch) drop(family byte, name string) {
	b.family = family
	b.nft(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, text(unix.NFTA_TABLE_NAME, name))
	b.nft(unix.NFT_MSG_DELTABLE, 0, text(unix.NFTA_TABLE_NAME, name))
}

// chain makes a base chain that accepts what no rule decides.
func (b *batch) chain(table, name, kind string, hook, priority int32) {
	b.nft(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE,
		text(unix.NFTA_CHAIN_TABLE, table), text(unix.NFTA_CHAIN_NAME, name),
		nested(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, uint32(hook)), number(unix.NFTA_HOOK_PRIORITY, uint32(priority))),
		number(unix.NFTA_CHAIN_POLICY, nfAccept), text(unix.NFTA_CHAIN_TYPE, kind))
}

// rule appends a rule to a chain.
func (b *batch) rule(table, chain string, parts ...[]byte) {
	b.nft(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND,
		text(unix.NFTA_RULE_TABLE, table), text(unix.NFTA_RULE_CHAIN, chain), nested(unix.NFTA_RULE_EXPRESSIONS, parts...))
}

// commitPatience bounds the wait for the kernel's word, in seconds.
const commitPatience = 10

// commit sends the transaction and returns what the kernel says of it.
func (b *batch) commit() error {
	flags := b.raw[b.last+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK) // errors of the others come before it
	want := b.seq
	b.message(batchEnd, 0, unix.AF_UNSPEC, subsystem, nil)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }() // nothing of it is left
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*len(b.raw)+64<<10)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: commitPatience}); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Sendto(fd, b.raw, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("send rules", err)
	}
	return awaitVerdict(fd, want)
}

// awaitVerdict reads what the kernel says until the message of that number has its word.
func awaitVerdict(fd int, want uint32) error {
	var first error
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return errors.Join(first, os.NewSyscallError("receive verdict", err))
		}
		done, err := verdict(buf[:n], want)
		if first == nil {
			first = err
		}
		if done || first != nil {
			return first
		}
	}
}

// verdict reads the kernel's answers: the first error, and whether the wanted one is among them.
func verdict(raw []byte, want uint32) (done bool, err error) {
	for len(raw) >= nlHeader+4 {
		size := binary.NativeEndian.Uint32(raw)
		if size < nlHeader+4 || uint64(size) > uint64(len(raw)) {
			return true, errors.New("the kernel's verdict makes no sense")
		}
		if binary.NativeEndian.Uint16(raw[4:]) == unix.NLMSG_ERROR {
			seq := binary.NativeEndian.Uint32(raw[8:])
			code := int32(binary.NativeEndian.Uint32(raw[nlHeader:]))
			if code != 0 && err == nil {
				err = fmt.Errorf("message %d: %w", seq, syscall.Errno(-code))
			}
			done = done || seq == want
		}
		raw = raw[min(uint64(len(raw)), uint64(size+3)&^3):]
	}
	return done, err
}

// attr is one attribute, padded to four bytes.
func attr(kind uint16, value []byte) []byte {
	size := 4 + len(value)
	raw := make([]byte, 0, size+3)
	raw = binary.NativeEndian.AppendUint16(raw, uint16(size))
	raw = binary.NativeEndian.AppendUint16(raw, kind)
	raw = append(raw, value...)
	return append(raw, make([]byte, (4-size%4)%4)...)
}

func text(kind uint16, value string) []byte { return attr(kind, append([]byte(value), 0)) }

func number(kind uint16, value uint32) []byte {
	return attr(kind, binary.BigEndian.AppendUint32(nil, value))
}

func nested(kind uint16, parts ...[]byte) []byte { return attr(kind|unix.NLA_F_NESTED, join(parts)) }

func join(parts [][]byte) []byte {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// expression is one step of a rule.
func expression(name string, attrs ...[]byte) []byte {
	return nested(unix.NFTA_LIST_ELEM, text(unix.NFTA_EXPR_NAME, name), nested(unix.NFTA_EXPR_DATA, attrs...))
}

const reg, reg2 = unix.NFT_REG_1, unix.NFT_REG_2

func compare(op uint32, value []byte) []byte {
	return expression("cmp", number(unix.NFTA_CMP_SREG, reg), number(unix.NFTA_CMP_OP, op), nested(unix.NFTA_CMP_DATA, attr(unix.NFTA_DATA_VALUE, value)))
}

func equal(value []byte) []byte   { return compare(unix.NFT_CMP_EQ, value) }
func differs(value []byte) []byte { return compare(unix.NFT_CMP_NEQ, value) }

func meta(key uint32) []byte {
	return expression("meta", number(unix.NFTA_META_DREG, reg), number(unix.NFTA_META_KEY, key))
}

// name is an interface's, as the kernel compares it.
func name(s string) []byte { return append([]byte(s), make([]byte, unix.IFNAMSIZ-len(s))...) }

// in and out match an interface by its name; a prefix matches every one that begins so.
func in(iface string) []byte { return join([][]byte{meta(unix.NFT_META_IIFNAME), equal(name(iface))}) }
func inPrefix(prefix string) []byte {
	return join([][]byte{meta(unix.NFT_META_IIFNAME), equal([]byte(prefix))})
}
func out(iface string) []byte { return join([][]byte{meta(unix.NFT_META_OIFNAME), equal(name(iface))}) }
func outPrefix(prefix string) []byte {
	return join([][]byte{meta(unix.NFT_META_OIFNAME), equal([]byte(prefix))})
}
func notOutPrefix(prefix string) []byte {
	return join([][]byte{meta(unix.NFT_META_OIFNAME), differs([]byte(prefix))})
}

// header loads bytes of the packet's network (1) or transport (2) header.
func header(base, offset, size uint32) []byte {
	return expression("payload", number(unix.NFTA_PAYLOAD_DREG, reg), number(unix.NFTA_PAYLOAD_BASE, base),
		number(unix.NFTA_PAYLOAD_OFFSET, offset), number(unix.NFTA_PAYLOAD_LEN, size))
}

// Where things are in an IPv4 and a TCP or UDP header.
const (
	ipSource, ipDest = 12, 16
	portDest         = 2
)

// bits keeps those of the register that mask has.
func bits(mask []byte) []byte {
	return expression("bitwise", number(unix.NFTA_BITWISE_SREG, reg), number(unix.NFTA_BITWISE_DREG, reg), number(unix.NFTA_BITWISE_LEN, uint32(len(mask))),
		nested(unix.NFTA_BITWISE_MASK, attr(unix.NFTA_DATA_VALUE, mask)), nested(unix.NFTA_BITWISE_XOR, attr(unix.NFTA_DATA_VALUE, make([]byte, len(mask)))))
}

// connection matches packets of which the connection has any of these bits of a key.
func connection(key, mask uint32) []byte {
	return join([][]byte{
		expression("ct", number(unix.NFTA_CT_DREG, reg), number(unix.NFTA_CT_KEY, key)),
		bits(binary.NativeEndian.AppendUint32(nil, mask)), differs(make([]byte, 4)),
	})
}

const (
	stateKnown = 1<<1 | 1<<2 // established, related
	statusDNAT = 1 << 5      // its destination was changed: it came by a published port
)

// toThisHost matches packets whose destination is an address of this host.
func toThisHost() []byte {
	const daddr = 1 << 1
	return join([][]byte{
		expression("fib", number(unix.NFTA_FIB_DREG, reg), number(unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_ADDRTYPE), number(unix.NFTA_FIB_FLAGS, daddr)),
		equal(binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)),
	})
}

func load(register uint32, value []byte) []byte {
	return expression("immediate", number(unix.NFTA_IMMEDIATE_DREG, register), nested(unix.NFTA_IMMEDIATE_DATA, attr(unix.NFTA_DATA_VALUE, value)))
}

func verdictOf(code uint32) []byte {
	return expression("immediate", number(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT),
		nested(unix.NFTA_IMMEDIATE_DATA, nested(unix.NFTA_DATA_VERDICT, number(unix.NFTA_VERDICT_CODE, code))))
}

func accept() []byte { return verdictOf(nfAccept) }
func refuse() []byte { return verdictOf(nfDrop) }

func masquerade() []byte { return expression("masq") }

// redirect changes the destination to an address and a port.
func redirect(addr []byte, port uint16) []byte {
	return join([][]byte{
		load(reg, addr), load(reg2, binary.BigEndian.AppendUint16(nil, port)),
		expression("nat", number(unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT), number(unix.NFTA_NAT_FAMILY, familyIPv4),
			number(unix.NFTA_NAT_REG_ADDR_MIN, reg), number(unix.NFTA_NAT_REG_PROTO_MIN, reg2)),
	})
}
