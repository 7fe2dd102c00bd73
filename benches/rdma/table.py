"""Makes a table and a CSV file of rows of JSON as `rccl perf --json` writes them, each with its library.

    table.py ROWS CSV COMMAND

Times are medians of single calls in microseconds; over several rounds, the median of those.
"""

import collections
import datetime
import json
import os
import platform
import statistics
import sys

OWN = "rccl verbs"

source, target, command = sys.argv[1:]
with open(source) as file:
    rows = [json.loads(line) for line in file]
# The peers are timed out of place only.
rows = [row for row in rows if not row["in_place"]]
if wrong := sum(row["wrong"] for row in rows):
    sys.exit(f"{wrong} elements were wrong: see {source}")

times = collections.defaultdict(list)  # of (bytes, library), a row's times
for row in rows:
    times[row["bytes"], row["library"]].append(row["time_us"])
sizes = sorted({size for size, _ in times})
libraries = list(dict.fromkeys(library for _, library in times))


def median(size: int, library: str) -> float | None:
    of_rounds = [time["median"] for time in times[size, library]]
    return statistics.median(of_rounds) if of_rounds else None


with open(target, "w") as file:
    print(f"# {command}", file=file)
    machine = f"two guests of tests/rxe, an emulated core each, on {os.cpu_count()} cores, Linux {platform.release()}"
    print(f"# {machine}, {datetime.date.today()}", file=file)
    print("bytes,library,rounds,min_us,median_us,max_us,p99_us", file=file)
    for size in sizes:
        for library in libraries:
            found = times[size, library]
            if found:
                medians = [time["median"] for time in found]
                p99 = statistics.median(time["p99"] for time in found)
                figures = [min(medians), statistics.median(medians), max(medians), p99]
                print(size, library, len(found), *(f"{figure:.0f}" for figure in figures), sep=",", file=file)

print(f"{'bytes':>9}", *(f"{library:>13}" for library in libraries), f"{'best peer/verbs':>16}")
for size in sizes:
    line = [median(size, library) for library in libraries]
    peers = [time for library, time in zip(libraries, line) if time and not library.startswith("rccl")]
    own = median(size, OWN)
    ratio = f"{min(peers) / own:>16.2f}" if peers and own else ""
    print(f"{size:>9}", *(f"{time:>13.0f}" if time else " " * 13 for time in line), ratio)
