"""Unusual command lines: options out of range, paths of the wrong kind, and unknown names."""

from collections.abc import Iterator

HOSTILE = ("", ".", "..", "/", "a/b", "\x1b[31m", "a\nb", "\u202egpj", "x" * 300, "-", "--", "=1+1", "\udcff", "😀")
NUMBERS = ("0", "-1", "1e3", "99999999999999999999", "nan", "inf", "1.5", "x", "")


def command_lines() -> Iterator[tuple[str, ...]]:
    """Yield arguments, which refer to `study.yaml`, `folder`, `file` and the finished study `tiny` in `runs`."""
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
    for path in (".", "folder", "file", "file/x", "/", "/dev/null/x", "x" * 300):
        yield ("report", "tiny", "-o", path)
        yield ("export", "tiny", "-o", path)
        yield ("data", "check", "phantom", "-o", path)
        yield ("plan", "study.yaml", "--storage", path)
        yield ("plan", "study.yaml", "--cache", path)
        if path != "/":  # searching the entire file system takes long
            yield ("gc", "--storage", path)
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
