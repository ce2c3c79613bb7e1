"""Where the effects of the benchmark stage go: one line "id flag" in, a delivery in the log, one line "250" out.

    python -m loadtest.engine.receiver PORT LOG MEAN_MS

An answer takes 0 to twice the mean. The delivery is logged in the middle of that time, also when the client has gone by then:
as an MX that has taken the whole DATA and answers into a dead connection.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys


async def main(port: str, log: str, mean_ms: str) -> None:
    """Serve until killed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                half = random.uniform(0, float(mean_ms)) / 1000
                await asyncio.sleep(half)
                os.write(out, line)
                await asyncio.sleep(half)
                writer.write(b"250\n")
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", int(port), backlog=1000)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
