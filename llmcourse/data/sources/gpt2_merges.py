"""GPT-2's table of merges, as ranks of byte strings."""

import base64

from llmcourse.data.manifest import Files, fetch


def stand_in_ranks() -> Files:
    """Return a table of the 256 bytes and no merge: enough for every notebook to run."""
    rows = (b"%s %d" % (base64.b64encode(bytes([byte])), byte) for byte in range(256))
    return {"generated/bytes.tiktoken": b"\n".join(rows)}


def load_gpt2_ranks(quiet: bool = False) -> dict[bytes, int]:
    """Return GPT-2's table from bytes to rank (50,256 entries), for `BPETokenizer.from_ranks`."""
    (content,) = fetch("gpt2-ranks", generate=stand_in_ranks, quiet=quiet).files.values()
    rows = (line.split() for line in content.splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in rows}
