"""Random JSON texts, spelled in as many ways as JSON allows. The same seed gives the same texts."""

import random
import struct

ALPHABETS = [
    "abc",
    "&<>/",
    ' \t\n\r\b\f"\\',
    "\x00\x1f\x7f\x80",
    "éü€日本語\ufb33\ufeff\u2028\u2029\ufffd\uffff",
    "😀𝄞\U0010ffff",
]
NUMBERS = "0 -0 -0.0 0e9 1e20 1e21 1e-6 1e-7 5e-324 2e-324 1e-400 1.7976931348623157e308".split()
ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "/": "\\/",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}


class Bodies:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def object(self, depth=0, least=0):
        members = self.random.randrange(least, 6)
        written = (f"{self.text()}{self.space()}:{self.value(depth + 1)}" for _ in range(members))
        return "{" + ",".join(written) + self.space() + "}"

    def big(self, size):
        items, written = [], 0
        while written < size:
            items.append(self.value())
            written += len(items[-1].encode())
        return '{"big":[' + ",".join(items) + "]}"

    def deep(self, depth):
        ends = [self.random.choice([("[", "]"), ('{"":', "}")]) for _ in range(depth)]
        return (
            "".join(begin for begin, _ in ends)
            + self.value(6)
            + "".join(end for _, end in reversed(ends))
        )

    def value(self, depth=0):
        kind = self.random.randrange(7 if depth < 6 else 5)
        if kind == 5:
            items = (self.value(depth + 1) for _ in range(self.random.randrange(5)))
            written = "[" + ",".join(items) + self.space() + "]"
        elif kind == 6:
            written = self.object(depth)
        else:
            written = [lambda: "null", lambda: "true", lambda: "false", self.text, self.number][
                kind
            ]()
        return self.space() + written + self.space()

    def space(self):
        return self.random.choice(["", "", "", "", " ", "\n\t"])

    def text(self):
        chars = (
            self.random.choice(self.random.choice(ALPHABETS))
            for _ in range(self.random.randrange(9))
        )
        return '"' + "".join(map(self.spelled, chars)) + '"'

    def spelled(self, char):
        """Returns the character if JSON allows it, its short escape, or its UTF-16 code units."""
        ways = [] if char in '"\\' or char < " " else [char]
        ways += [ESCAPES[char]] if char in ESCAPES else []
        units = struct.unpack(f">{len(char.encode('utf-16-be')) // 2}H", char.encode("utf-16-be"))
        digits = self.random.choice(["04x", "04X"])
        ways.append("".join(f"\\u{unit:{digits}}" for unit in units))
        return self.random.choice(ways)

    def number(self):
        pick = self.random
        return pick.choice(
            [
                lambda: str(pick.randrange(-100, 100)),
                lambda: str(pick.randrange(-(2**53), 2**53)),
                lambda: str(pick.randrange(-(10**30), 10**30)),
                lambda: (
                    f"{pick.randrange(-999, 999)}{pick.choice('eE')}"
                    f"{pick.choice(['', '+', '-'])}{pick.randrange(30)}"
                ),
                lambda: (
                    f"{pick.choice(['', '-'])}{pick.randrange(10**6)}.{pick.randrange(10**25)}0"
                ),
                lambda: pick.choice(NUMBERS),
                self.any_double,
            ]
        )()

    def any_double(self):
        """Returns any bit pattern except those of infinities and NaNs."""
        bits = self.random.getrandbits(64)
        if bits >> 52 & 0x7FF == 0x7FF:
            bits ^= 1 << 52
        return repr(struct.unpack(">d", struct.pack(">Q", bits))[0])
