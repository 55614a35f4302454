"""What the CDF emulator holds, asked through its admin interface, past PostgreSQL.

python3 demo/summary.py URL arrived    counts of what is there, and the requests that brought it
python3 demo/summary.py URL writes     how many requests that write it has had so far
"""

import json
import sys
import urllib.request
from collections import Counter

# The emulator is on this machine, whatever proxy the environment names.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def admin(path):
    with opener.open(f"{sys.argv[1]}/admin/{path}") as answer:
        return json.load(answer)


def arrived():
    points = admin("datapoints/summary?project=test-project")
    for resource in ("assets", "timeseries", "events"):
        print(f"{len(admin(f'dump?project=test-project&resource={resource}')['items']):>6} {resource}")
    print(f"{points['count']:>6} datapoints in {points['series']} series")
    rows = admin("dump?project=test-project&resource=raw")["items"]
    for (database, table), count in Counter((row["database"], row["table"]) for row in rows).items():
        print(f"{count:>6} RAW rows in {database}/{table}")
    print("\nThe requests so far:")
    for path, count in admin("stats")["paths"].items():
        print(f"{count:>6} {path}")


def writes():
    """Counts requests, except for reads, tokens and look-ups of external ids."""
    reads = ("/list", "/byids", "/token", "/inspect")
    paths = admin("stats")["paths"]
    print(sum(count for path, count in paths.items() if path.startswith("POST") and not path.endswith(reads)))


{"arrived": arrived, "writes": writes}[sys.argv[2]]()
