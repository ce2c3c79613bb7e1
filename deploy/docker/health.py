#!/opt/postroad/bin/python -I
"""`postroad-health [livez|readyz]`: whether the process of this container answers so at its metrics port. Exit status 1: no, and why."""

import os
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 4.0


def main() -> int:
    """The exit status."""
    what = sys.argv[1] if len(sys.argv) > 1 else "livez"
    port = os.environ.get("POSTROAD_METRICS", "").rpartition(":")[2]
    if not port:
        print("POSTROAD_METRICS is not set: nothing answers how this process is", file=sys.stderr)
        return 1
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{what}", timeout=TIMEOUT_S):
            return 0
    except urllib.error.HTTPError as error:  # 503: it says what it waits for
        print(f"{what}: {error.code} {error.read(500).decode(errors='replace').strip()}", file=sys.stderr)
    except OSError as error:
        print(f"{what}: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
