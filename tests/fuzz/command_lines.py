"""Odd command lines: options out of range, places of the wrong kind, names that no study has."""

from collections.abc import Iterator

HOSTILE = ("", ".", "..", "/", "a/b", "\x1b[31m", "a\nb", "\u202egpj", "x" * 300, "-", "--", "=1+1", "\udcff", "😀")
NUMBERS = ("0", "-1", "1e3", "99999999999999999999", "nan", "inf", "1.5", "x", "")


def command_lines() -> Iterator[tuple[str, ...]]:
    """Yield the words of each; `study.yaml`, `folder`, `file` and the finished study `tiny` in `runs` may be there."""
    yield from ((), ("--help",), ("nope",), ("plan",), ("run",), ("data",), ("data", "check"), ("--version",))
    for name in HOSTILE:
        yield ("plan", name)
        yield ("status", name)
        yield ("table", name, "--format", "csv")
        yield ("init", "demo", "-o", name)
        yield ("plan", "study.yaml", "--set", name)
        yield ("plan", "study.yaml", "--set", f"{name}=1")
        yield ("plan", "study.yaml", "--set", f"name={name}")
    for number in NUMBERS:
        yield ("predict", "tiny", "folder", "-o", "out", f"--size={number}")
        yield ("predict", "tiny", "folder", "-o", "out", f"--tile={number}")
        yield ("predict", "tiny", "folder", "-o", "out", f"--threshold={number}")
        yield ("export", "tiny", "-o", "net.onnx", f"--fold={number}")
    for place in (".", "folder", "file", "file/x", "/", "/dev/null/x", "x" * 300):
        yield ("report", "tiny", "-o", place)
        yield ("export", "tiny", "-o", place)
        yield ("data", "check", "phantom", "-o", place)
        yield ("plan", "study.yaml", "--storage", place)
        yield ("plan", "study.yaml", "--cache", place)
        if place != "/":  # reading the whole machine takes long
            yield ("gc", "--storage", place)
    yield from (
        ("table", "tiny", "--metric", "nope"), ("table", "tiny", "--class", "nope"), ("table", "tiny", "--rows", "x"),
        ("table", "tiny", "--split", "x"), ("table", "tiny", "--aggregation", "x"), ("compare", "tiny", "nope"),
        ("status", "tiny", "--json", "--storage", "s4://x"), ("predict", "tiny", "nowhere", "-o", "out"),
        ("predict", "tiny", "-o", "out"), ("export", "ffffffff", "-o", "x.onnx"), ("data", "check", "nope"),
        ("data", "check", "folder"), ("data", "check", "folder", "nowhere"), ("data", "check", "phantom", "--set", "x"),
        ("data", "check", "phantom", "--set", "images=0"), ("init", "nope"), ("catalog", "x"), ("schema", "--x"),
        ("plan", "study.yaml", "study.yaml"), ("plan", "study.yaml", "--storage", "s3://"), ("resume", "nope"),
        ("submit", "study.yaml", "--address", "x"), ("logs", "x", "--address", "http://127.0.0.1:1"),
    )  # fmt: skip
