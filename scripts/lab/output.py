"""What the jobs printed: the stream of the output channel, cut into jobs and freed of what the channel adds."""
import base64
import re


def clean(raw, virtio, tar=None):
    """The stream without the second UART's stray bytes; a tar that came as text at its end is written to tar."""
    if virtio:
        return raw
    raw = re.sub(rb"[^\n]*\n##labout\n", b"", raw.replace(b"\r\n", b"\n"))
    head, _, text = raw.partition(b"\n##labtar\n")
    if text and tar:
        tar.write_bytes(base64.b64decode(re.sub(rb"[^A-Za-z0-9+/=]", b"", text)))
    return head


def split(raw, tag, virtio, tar, names):
    """{job name: what it printed}; a board that reset itself ran its jobs more than once, and all of it is there."""
    parts = re.split(rb"##labjob " + tag.encode() + rb" (\d+)\n", clean(raw, virtio, tar))
    found = {}
    for number, text in zip(parts[1::2], parts[2::2]):
        name = names[int(number)]
        found[name] = found.get(name, b"") + text
    return found


class Live:
    """Writes the stream on as it comes, without the marks between jobs."""

    def __init__(self, tag, virtio, write):
        self.mark = re.compile(rb"##labjob " + tag.encode() + rb" \d+\n")
        self.held, self.write, self.open = b"", write, virtio

    def __call__(self, chunk):
        self.held += chunk
        if not self.open:  # all before this mark is noise of the UART
            _, found, rest = self.held.partition(b"##labout\n")
            if not found:
                return
            self.held, self.open = rest, True
        self.held = self.mark.sub(b"", self.held)
        cut = self.held.rfind(b"##lab")
        if cut < 0 or b"\n" in self.held[cut:]:
            cut = len(self.held)
        self.write(self.held[:cut])
        self.held = self.held[cut:]
